"""Who is let in, as settings say it."""

from __future__ import annotations

from typing import Final

import grpc

from annserve.domain.errors import InputError
from annserve.service.security import Security, is_loopback
from annserve.service.tls import TlsFiles
from annserve.settings import Settings


def security_of(settings: Settings) -> Security:
    """Return how ports are to be secured.

    Raises:
        InputError: of a certificate and its key only one is given, or an authority without them.
    """
    tls = None
    if settings.tls_certificate is not None and settings.tls_key is not None:
        tls = TlsFiles(certificate=settings.tls_certificate, key=settings.tls_key, client_ca=settings.tls_client_ca)
    elif settings.tls_certificate or settings.tls_key or settings.tls_client_ca:
        raise InputError(
            "ANNSERVE_TLS_CERTIFICATE and ANNSERVE_TLS_KEY are given together, and ANNSERVE_TLS_CLIENT_CA only beside "
            "them"
        )
    return Security(tls=tls, api_keys=settings.api_keys, insecure=settings.insecure)


_HUNG_UP: Final = ("socket closed", "handshake", "ssl", "connection reset")
"""What gRPC says where one side speaks TLS and the other does not."""


def channel_credentials(settings: Settings) -> grpc.ChannelCredentials | None:
    """Return how this program's own calls are secured; None for plain text.

    Raises:
        InputError: a file cannot be read.
    """
    if settings.tls_ca is None:
        return None
    own = (settings.tls_key, settings.tls_certificate)
    try:
        key, certificate = (None if path is None else path.read_bytes() for path in own)
        return grpc.ssl_channel_credentials(settings.tls_ca.read_bytes(), key, certificate)
    except OSError as error:
        raise InputError(f"the certificates cannot be read: {error}") from error


def tls_advice(error: Exception, otherwise: str) -> str:
    """Return what to do about a call that nobody answered; ``otherwise``, unless it looks like one side without TLS."""
    said = str(error).lower()
    if not any(sign in said for sign in _HUNG_UP):
        return otherwise
    return (
        "what listens there hangs up: is it TLS there and not here, or the other way round? ANNSERVE_TLS_CA has this "
        "side speak it, ANNSERVE_TLS_CERTIFICATE and ANNSERVE_TLS_KEY show who calls"
    )


def api_key(settings: Settings) -> str | None:
    """Return what this program's own calls bring with them."""
    return None if settings.api_key is None else settings.api_key.get_secret_value()


def is_reflected(settings: Settings, address: str) -> bool:
    """Return whether reflection is on at ``address``: as said, or where only this machine comes."""
    return is_loopback(address) if settings.reflection is None else settings.reflection
