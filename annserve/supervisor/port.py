"""The port of an instance: taken by one supervisor, shared by its workers."""

from __future__ import annotations

import errno
import socket

from annserve.domain.errors import InputError


class PortReservation:
    """Keeps a port for the workers of this instance, from before the first of them is there until after the last.

    Sockets with SO_REUSEPORT share a port with whoever asks, other instances of the same user included: calls would
    be split between them, silently. So each address has a lock too: an abstract Unix socket, which goes with its
    process.
    """

    def __init__(self, address: str, option: str = "--address") -> None:
        """Take ``address``, host and port; port 0 takes a free one. ``option`` is what it is given by.

        Raises:
            InputError: it is in use, or cannot be used; the message says what to do.
        """
        host, _, port_text = address.rpartition(":")
        self._sockets: list[socket.socket] = []
        try:
            port = int(port_text)
            if not 0 <= port <= 65_535:
                raise ValueError(f"there is no port {port}")
            family, kind, protocol, _, target = socket.getaddrinfo(
                host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            if port:
                self._lock(port)
                # Without SO_REUSEPORT, so that a server that is no annserve is noticed as well.
                with socket.socket(family, kind, protocol) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(target)
            # Never listening: the kernel gives no connection to it.
            held = socket.socket(family, kind, protocol)
            self._sockets.append(held)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind(target)
            if not port:
                port = held.getsockname()[1]
                self._lock(port)
        except OSError as error:
            self.release()
            raise InputError(
                f"cannot serve on {address}: {_advice(error, option)}",
                address=address,
            ) from error
        except (ValueError, OverflowError) as error:
            raise InputError(
                f"cannot serve on {address}: the form is host:port, for example 127.0.0.1:50051", address=address
            ) from error
        self.address = f"{host}:{port}"
        """With the port that was taken."""

    def release(self) -> None:
        """Give the port back."""
        for held in self._sockets:
            held.close()

    def _lock(self, port: int) -> None:
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sockets.append(lock)
        lock.bind(f"\0annserve-port-{port}")


def _advice(error: OSError, option: str) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"the port is in use; stop what listens there, or choose another {option} (port 0 takes a free one)"
        case errno.EACCES:
            return "not allowed; choose a port from 1024 on"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address; 127.0.0.1 serves this machine, 0.0.0.0 all who reach it"
        case _:
            return f"{error.strerror or error}; the form is host:port, for example 127.0.0.1:50051"
