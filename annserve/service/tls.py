"""Certificates of a server, read again whenever their files change: a renewal needs no restart and drops no call."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import grpc

from annserve.domain.errors import InputError

LOOK_SECONDS: Final = 0.1
"""How long files are believed to be unchanged."""

_Stamp: TypeAlias = tuple[tuple[int, int, int], ...]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Where a server's certificates are, all in PEM."""

    certificate: Path
    """The server's own, followed by those between it and its authority."""
    key: Path
    client_ca: Path | None = None
    """The authority that signs clients' certificates: with it every client must show one."""


class CertificateReloader:
    """Gives grpc, at each handshake, what the files hold then. Any thread may ask."""

    def __init__(self, files: TlsFiles) -> None:
        """Read ``files``.

        Raises:
            InputError: a file is missing, or holds no certificate, or key and certificate do not belong together.
        """
        self._files = files
        self._lock = threading.Lock()
        self._stamp = self._stamped()
        self._configuration = self._read()
        self._looked_at = time.monotonic()

    def credentials(self) -> grpc.ServerCredentials:
        """Return what a port is secured with."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration,
            self._renewed,  # type: ignore[arg-type]  # None is documented: nothing has changed
            require_client_authentication=self._files.client_ca is not None,
        )

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what is to be used from now on; None for what was used before."""
        with self._lock:
            now = time.monotonic()
            if now < self._looked_at + LOOK_SECONDS:
                return None
            self._looked_at = now
            try:
                stamp = self._stamped()
                if stamp == self._stamp:
                    return None
                configuration = self._read()
            except InputError as error:
                # Certificate and key are two files: for a moment they may not belong together.
                _log.warning("certificates are not renewed yet: %s", error)
                return None
            self._stamp, self._configuration = stamp, configuration
        _log.info("certificates were renewed")
        return configuration

    def _stamped(self) -> _Stamp:
        paths = (self._files.certificate, self._files.key, self._files.client_ca)
        try:
            stats = [path.stat() for path in paths if path is not None]
        except OSError as error:
            raise _problem(error) from error
        return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in stats)

    def _read(self) -> grpc.ServerCertificateConfiguration:
        files = self._files
        try:
            # grpc accepts whatever it is given, and refuses every handshake then.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(files.certificate, files.key)
            if files.client_ca is not None:
                context.load_verify_locations(files.client_ca)
            pairs = [(files.key.read_bytes(), files.certificate.read_bytes())]
            client_ca = None if files.client_ca is None else files.client_ca.read_bytes()
        except (OSError, ssl.SSLError) as error:
            raise _problem(error) from error
        return grpc.ssl_server_certificate_configuration(pairs, client_ca)


def _problem(error: OSError) -> InputError:
    what = getattr(error, "reason", None) or error.strerror or type(error).__name__
    where = f" ({error.filename})" if error.filename else ""
    return InputError(
        f"the certificates cannot be used: {what}{where}; ANNSERVE_TLS_CERTIFICATE and ANNSERVE_TLS_KEY must be PEM "
        "files of one pair"
    )
