"""Ports as safe as they are told to be: TLS, keys, and nothing beyond this machine without either."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from annserve.domain.errors import InputError
from annserve.service.access import AccessControl, Refusals
from annserve.service.access_keys import AccessKeys
from annserve.service.metrics import Metrics
from annserve.service.tls import CertificateReloader, TlsFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """How callers are kept apart from others."""

    tls: TlsFiles | None = None
    """None for plain text."""
    api_keys: Path | None = None
    """None where nobody is asked for a key."""
    insecure: bool = False
    """Whether plain text may be spoken with other machines."""
    refusals: Refusals = field(default_factory=Refusals, compare=False)
    """What was turned away so far."""

    def interceptors(self) -> tuple[grpc.aio.ServerInterceptor, ...]:
        """Return what every call of a server has to go through; raises InputError for keys that cannot be read."""
        access = self.access()
        return () if access is None else (access,)

    def access(self) -> AccessControl | None:
        """Return who lets callers in, None for everybody; raises InputError for keys that cannot be read."""
        return None if self.api_keys is None else AccessControl(AccessKeys(self.api_keys), self.refusals)

    def follow_in(self, metrics: Metrics) -> None:
        """Publish what was turned away in ``metrics``."""
        if self.api_keys is not None:
            metrics.follow_fields("annserve_auth_failures", "Calls turned away for their key.", "reason", self.refusals)

    def listen(self, server: grpc.aio.Server, address: str) -> int:
        """Have ``server`` listen on ``address``, and return the port.

        Raises:
            InputError: the certificates cannot be used.
            RuntimeError: grpc cannot listen there.
        """
        if self.tls is None:
            return int(server.add_insecure_port(address))
        return int(server.add_secure_port(address, CertificateReloader(self.tls).credentials()))

    def check(self, address: str) -> None:
        """Look that everything is as it must be to serve on ``address``.

        Raises:
            InputError: other machines would be served in plain text, and nobody has said that they may; or keys or
                certificates cannot be used.
        """
        if self.tls is None and not self.insecure and not is_loopback(address):
            raise InputError(
                f"not served on {address} in plain text, other machines reach it: give a certificate "
                "(ANNSERVE_TLS_CERTIFICATE, ANNSERVE_TLS_KEY), or say --insecure where something before annserve "
                "speaks TLS",
                address=address,
            )
        if self.tls is not None:
            CertificateReloader(self.tls)
        self.interceptors()


def is_loopback(address: str) -> bool:
    """Return whether all that ``address`` (host:port) stands for are addresses of this machine alone."""
    host = address.rpartition(":")[0]
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except OSError:
        return False  # Whoever listens there says what is wrong with it.
    return all(ipaddress.ip_address(target[0]).is_loopback for *_, target in found)
