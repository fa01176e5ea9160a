"""Which transport serves where, and what is said when it cannot be the one that was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from annserve.domain.errors import InputError, OverloadedError
from annserve.service.admission import WAIT_SECONDS_MAX, Admission
from annserve.service.security import Security
from annserve.service.tls import TlsFiles
from annserve.service.transport import chosen

TLS = Security(tls=TlsFiles(certificate=Path("server.pem"), key=Path("server.key")))
PLAIN = Security(insecure=True)


@pytest.mark.parametrize(
    ("address", "security", "expected"),
    [
        ("127.0.0.1:50051", PLAIN, "native"),
        ("[::1]:50051", PLAIN, "native"),
        ("127.0.0.1:50051", TLS, "grpcio"),
        ("0.0.0.0:50051", PLAIN, "grpcio"),
        ("192.0.2.1:50051", TLS, "grpcio"),
    ],
)
def test_auto_is_native_on_loopback_without_tls(address: str, security: Security, expected: str) -> None:
    assert chosen("auto", address, security) == expected


def test_native_is_taken_where_it_is_asked_for_and_refused_where_it_cannot_be() -> None:
    assert chosen("native", "0.0.0.0:50051", PLAIN) == "native"
    with pytest.raises(InputError, match="the native transport speaks no TLS: use the transport grpcio, or auto"):
        chosen("native", "127.0.0.1:50051", TLS)


def test_without_the_package_auto_is_grpcio_and_native_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("annserve.service.transport.find_spec", lambda _name: None)

    assert chosen("auto", "127.0.0.1:50051", PLAIN) == "grpcio"
    with pytest.raises(InputError, match=r"pip install 'annserve\[native\]'"):
        chosen("native", "127.0.0.1:50051", PLAIN)


def test_a_call_that_has_waited_too_long_is_refused_for_want_of_time() -> None:
    admission = Admission(1)

    admission.check(1, WAIT_SECONDS_MAX)
    with pytest.raises(OverloadedError, match="short of time"):
        admission.check(1, WAIT_SECONDS_MAX + 0.001)
