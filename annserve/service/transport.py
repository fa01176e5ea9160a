"""What brings calls in and takes answers out: gRPC's own server, or one that speaks HTTP/2 in native threads.

The servicer does not know which; see docs/decisions/0043-a-second-transport.md for what each can do.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeAlias

import grpc

from annserve.domain.errors import InputError
from annserve.service.context import Call, Context, ServedMethod
from annserve.service.limits import REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX
from annserve.service.listeners import leave, wait_until_closed
from annserve.service.security import Security, is_loopback

TransportName: TypeAlias = Literal["auto", "grpcio", "native"]

OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
    ("grpc.max_send_message_length", RESPONSE_BYTES_MAX),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.max_concurrent_streams", 128),
    # Of calls that arrived and were not begun, grpc ends some as CANCELLED from the one on, all from the other on. It
    # costs a quarter of a refusal of ours, and keeps what is begun from having waited for longer than it takes.
    ("grpc.server.max_pending_requests", 64),
    ("grpc.server.max_pending_requests_hard_limit", 128),
    # Connections are renewed now and then, so that a balancer can spread them anew.
    ("grpc.max_connection_age_ms", 300_000),
    ("grpc.max_connection_age_grace_ms", 30_000),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.server_handshake_timeout_ms", 5_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Less than the client's 30 s, or its pings would be answered with GOAWAY.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


class Transport(Protocol):
    """Serves methods of bytes on one address, from `listen` to `stop`, in one event loop."""

    rest: grpc.aio.Server
    """Takes the handlers of all other services, before `start`: health, reflection."""

    def serve(self, service: str, methods: Mapping[str, ServedMethod]) -> None:
        """Answer the ``methods`` of ``service``, by name; before `listen`, and once."""
        ...

    def listen(self, address: str) -> int:
        """Take ``address``, host and port, and return the port.

        Raises:
            InputError: the certificates cannot be used.
            RuntimeError: it cannot be taken.
        """
        ...

    async def start(self) -> None:
        """Answer calls."""
        ...

    async def wait_until_lost(self) -> None:
        """Return when it takes no connections any more, though nobody has stopped it."""
        ...

    async def leave(self, seconds_max: float) -> None:
        """Take no more connections, and have clients use others, within ``seconds_max``; calls are still answered."""
        ...

    async def stop(self, grace_seconds: float | None) -> None:
        """Begin no more calls, give those under way the time, then cancel them. Called again, it hurries."""
        ...


class GrpcioTransport:
    """gRPC's own server, with everything it can do."""

    def __init__(self, security: Security, *, shares_port: bool) -> None:
        self._security = security
        self._port: int | None = None
        self._is_lost = False
        # grpc shares ports by default: two servers on one port would split the calls between them, silently.
        options = [*OPTIONS, ("grpc.so_reuseport", int(shares_port))]
        self.rest = grpc.aio.server(interceptors=security.interceptors(), options=options)

    def serve(self, service: str, methods: Mapping[str, ServedMethod]) -> None:
        """Answer the methods of ``service``; see `Transport.serve`."""
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            name: grpc.unary_unary_rpc_method_handler(_alone(served)) for name, served in methods.items()
        }
        # Not registered one by one: the loop waits for each registered method, at every call. Health registers itself,
        # so it does not queue behind the others.
        self.rest.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))

    def listen(self, address: str) -> int:
        """Take ``address``; see `Transport.listen`."""
        self._port = port = self._security.listen(self.rest, address)
        return port

    async def start(self) -> None:
        """Answer calls."""
        await self.rest.start()

    async def wait_until_lost(self) -> None:
        """Return when it takes no connections any more; see `Transport.wait_until_lost`."""
        if self._port is None:
            raise RuntimeError("listen comes first")
        await wait_until_closed(self._port)
        self._is_lost = True

    async def leave(self, seconds_max: float) -> None:
        """Have callers go elsewhere; see `Transport.leave`.

        By itself grpc asks them to while it still listens, and ends connections on which calls are coming.
        """
        if self._port is not None and not self._is_lost:
            await leave(self._port, seconds_max, is_plain=self._security.tls is None)

    async def stop(self, grace_seconds: float | None) -> None:
        """Begin no more calls; see `Transport.stop`."""
        if not self._is_lost:  # It would never return.
            await self.rest.stop(grace_seconds)


def _alone(served: ServedMethod) -> Call:
    """Return what answers calls of a method one by one.

    They have tasks already, and begin one in each turn of the loop: in 11,640 turns under load 860 had two, none more.
    """
    call, kept, together = served

    async def alone(data: bytes, context: Context, waited_seconds: float = 0.0) -> bytes:
        answer = None if kept is None else kept(data, context)
        if answer is None and together is not None:
            (answer,) = together.answer((data,), (context,), waited_seconds)
        return await call(data, context, waited_seconds) if answer is None else answer

    return alone


def chosen(name: TransportName, address: str, security: Security) -> Literal["grpcio", "native"]:
    """Return which transport serves ``address``.

    ``auto`` is native where it is installed, speaks for this machine alone, and has no TLS to speak: it bounds neither
    the bytes of a request before it is there nor a connection's age, which strangers could make use of.

    Raises:
        InputError: native is asked for, and is not installed or has TLS to speak; the message says what to do.
    """
    if name == "grpcio":
        return "grpcio"
    is_installed = find_spec("pygrpc_native") is not None
    if name == "auto":
        return "native" if is_installed and security.tls is None and is_loopback(address) else "grpcio"
    if not is_installed:
        raise InputError("the native transport is not installed: pip install 'annserve[native]', or use grpcio")
    if security.tls is not None:
        raise InputError("the native transport speaks no TLS: use the transport grpcio, or auto, with a certificate")
    return "native"


def transport_of(
    name: TransportName, address: str, security: Security, *, shares_port: bool, socket_folder: Path | None = None
) -> Transport:
    """Return what serves ``address``; raises as `chosen`, and InputError for keys that cannot be read.

    Args:
        name: As chosen by whoever runs the server.
        address: Host and port.
        security: Who is let in, and how.
        shares_port: Whether other processes listen there too.
        socket_folder: Where sockets between the parts of a server are made; None for any.
    """
    if chosen(name, address, security) == "grpcio":
        return GrpcioTransport(security, shares_port=shares_port)
    from annserve.service.native_transport import NativeTransport  # noqa: PLC0415 - may not be installed

    return NativeTransport(security, shares_port=shares_port, socket_folder=socket_folder)
