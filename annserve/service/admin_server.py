"""The server that AdminService has to itself: on the loopback interface, unless told otherwise."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import Final

import grpc
from grpc_reflection.v1alpha import reflection

from annserve.domain.errors import InputError
from annserve.service.admin_servicer import SERVICE_NAME, AdminServicer, Operated
from annserve.service.server import OPTIONS, bindable

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
    """Whether other machines may reach it: it has no authentication."""
    reflection: bool = True


class AdminServer:
    """One server in one event loop, from `start` to `stop`."""

    def __init__(self, settings: AdminSettings, operated: Operated) -> None:
        self._settings = settings
        # Two servers on one port would split the calls between them, silently.
        options = [*(dict(OPTIONS) | _SIZES).items(), ("grpc.so_reuseport", 0)]
        self._grpc = grpc.aio.server(options=options)
        self._grpc.add_registered_method_handlers(SERVICE_NAME, AdminServicer(operated).handlers())
        if settings.reflection:
            reflection.enable_server_reflection((SERVICE_NAME, reflection.SERVICE_NAME), self._grpc)

    async def start(self) -> str:
        """Serve; return the address, with the port that was taken where 0 was asked for.

        Raises:
            InputError: the address cannot be listened on, or other machines would reach it and may not.
        """
        address = self._settings.address
        host, port = bindable(address)
        if not self._settings.allow_remote and not _is_loopback(host):
            raise InputError(
                f"the admin port is not served on {address}: other machines reach it, and it has no authentication; "
                "use 127.0.0.1, or set ANNSERVE_ADMIN_ALLOW_REMOTE=true behind something that asks who is there",
                address=address,
            )
        try:
            bound_port = self._grpc.add_insecure_port(address)
        except RuntimeError as error:
            raise InputError(f"cannot serve on {address}: {error}", address=host, port=port) from error
        await self._grpc.start()
        return f"{host}:{bound_port}"

    async def stop(self, grace_seconds: float = 0.0) -> None:
        """Turn new calls away, and cancel those that are not done within the grace."""
        await self._grpc.stop(grace_seconds)


def _is_loopback(host: str) -> bool:
    """Return whether all that ``host`` stands for are addresses of this machine alone."""
    found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    return all(ipaddress.ip_address(target[0]).is_loopback for *_, target in found)
