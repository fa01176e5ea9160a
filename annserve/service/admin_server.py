"""The server that AdminService has to itself: on the loopback interface, unless told otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import grpc
from grpc_reflection.v1alpha import reflection

from annserve.domain.errors import InputError
from annserve.service.admin_servicer import SERVICE_NAME, AdminServicer, Operated
from annserve.service.listeners import wait_until_closed
from annserve.service.security import Security, is_loopback
from annserve.service.server import bindable
from annserve.service.transport import OPTIONS

REQUEST_BYTES_MAX: Final = 16 * 1024 * 1024
"""Room for 1,000 items with vectors of 4,096 numbers."""

RESPONSE_BYTES_MAX: Final = 4 * 1024 * 1024

_SIZES: Final = {
    "grpc.max_receive_message_length": REQUEST_BYTES_MAX,
    "grpc.max_send_message_length": RESPONSE_BYTES_MAX,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminSettings:
    """How the server is to be run."""

    address: str = "127.0.0.1:50052"
    """Host and port; port 0 takes a free one."""
    allow_remote: bool = False
    """Whether other machines may reach it though nobody is asked for a key."""
    reflection: bool = True
    security: Security = field(default_factory=Security)


class AdminServer:
    """One server in one event loop, from `start` to `stop`."""

    def __init__(self, settings: AdminSettings, operated: Operated) -> None:
        self._settings = settings
        self._is_lost = False
        # Two servers on one port would split the calls between them, silently.
        options = [*(dict(OPTIONS) | _SIZES).items(), ("grpc.so_reuseport", 0)]
        self._grpc = grpc.aio.server(interceptors=settings.security.interceptors(), options=options)
        self._grpc.add_registered_method_handlers(SERVICE_NAME, AdminServicer(operated).handlers())
        if settings.reflection:
            reflection.enable_server_reflection((SERVICE_NAME, reflection.SERVICE_NAME), self._grpc)

    async def start(self) -> str:
        """Serve; return the address, with the port that was taken where 0 was asked for.

        Raises:
            InputError: the address cannot be listened on, or other machines would reach it and may not.
        """
        address, security = self._settings.address, self._settings.security
        host, port = bindable(address)
        is_guarded = security.tls is not None and security.api_keys is not None
        if not is_guarded and not self._settings.allow_remote and not is_loopback(address):
            raise InputError(
                f"the admin port is not served on {address}: other machines reach it, and nobody is asked who he is; "
                "use 127.0.0.1, or TLS with API keys, or set ANNSERVE_ADMIN_ALLOW_REMOTE=true behind what does ask",
                address=address,
            )
        try:
            self._port = security.listen(self._grpc, address)
        except RuntimeError as error:
            raise InputError(f"cannot serve on {address}: {error}", address=host, port=port) from error
        await self._grpc.start()
        return f"{host}:{self._port}"

    async def wait_until_lost(self) -> None:
        """Return when a server that was started takes no connections any more, though nobody has stopped it."""
        await wait_until_closed(self._port)
        self._is_lost = True

    async def stop(self, grace_seconds: float = 0.0) -> None:
        """Turn new calls away, and cancel those that are not done within the grace."""
        if not self._is_lost:  # It would never return.
            await self._grpc.stop(grace_seconds)
