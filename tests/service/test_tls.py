"""TLS: certificates are renewed while calls go on, clients may have to show theirs, plain text is not understood."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
import trustme
from edge_twin import TIMEOUT_SECONDS, TwinRecommender

from annserve.domain.errors import InputError
from annserve.service.access_keys import new_key
from annserve.service.security import Security
from annserve.service.server import Server
from annserve.service.settings import ServerSettings
from annserve.service.tls import CertificateReloader, TlsFiles
from annserve.v1 import recommendation_service_pb2 as messages
from annserve.v1 import recommendation_service_pb2_grpc as service
from annserve_client import AnnserveError, AsyncClient, Similar

ROTATIONS = 100
README = Path(__file__).parent.parent.parent / "clients" / "python" / "README.md"


class Authority:
    """A certificate authority, and the server's files that it signs."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.files = TlsFiles(certificate=folder / "server.pem", key=folder / "server.key")
        self.renew()

    def renew(self) -> bytes:
        """Write a new certificate and key, one after the other, and return the certificate."""
        issued = self.ca.issue_cert("localhost", "127.0.0.1")
        self.files.key.write_bytes(issued.private_key_pem.bytes())
        self.files.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return issued.cert_chain_pems[0].bytes()

    def trusted(self, client: trustme.LeafCert | None = None) -> grpc.ChannelCredentials:
        key = None if client is None else client.private_key_pem.bytes()
        chain = None if client is None else client.cert_chain_pems[0].bytes()
        return grpc.ssl_channel_credentials(self.ca.cert_pem.bytes(), key, chain)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def serving(twin: TwinRecommender, files: TlsFiles) -> Server:
    return Server(ServerSettings(address="127.0.0.1:0", security=Security(tls=files)), twin)


async def shown(address: str) -> bytes:
    """Return the certificate that a new connection is shown."""
    host, _, port = address.rpartition(":")
    text = await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)), timeout=TIMEOUT_SECONDS)
    return text.encode()


async def test_calls_are_answered_over_tls_and_not_in_plain_text(twin: TwinRecommender, authority: Authority) -> None:
    server = serving(twin, authority.files)
    address = await server.start()

    async with AsyncClient(address, credentials=authority.trusted()) as client:
        assert (await client.similar(["item-0"], timeout_seconds=5.0)).results
    async with AsyncClient(address) as client:
        with pytest.raises(AnnserveError):
            await client.similar(["item-0"], timeout_seconds=1.0)
    stranger = grpc.ssl_channel_credentials(trustme.CA().cert_pem.bytes())
    async with AsyncClient(address, credentials=stranger) as client:
        with pytest.raises(AnnserveError):
            await client.similar(["item-0"], timeout_seconds=1.0)
    await server.stop()


async def test_the_example_of_the_python_client_is_answered_over_tls_with_a_key(
    twin: TwinRecommender, authority: Authority, tmp_path: Path
) -> None:
    key, digest = new_key()
    keys = tmp_path / "keys.yaml"
    keys.write_text(f"keys: [{{name: shop, sha256: {digest}, scopes: [query]}}]")
    server = Server(ServerSettings(address="127.0.0.1:0", security=Security(tls=authority.files, api_keys=keys)), twin)
    address = await server.start()
    authority.ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (example,) = re.findall(r"```py\n((?:(?!```).)*ssl_channel_credentials.*?)```", README.read_text(), re.DOTALL)

    program = [sys.executable, "-c", example.replace("annserve.example:50051", address).replace("22423", "item-0")]
    environment = {**os.environ, "ANNSERVE_API_KEY": key}
    done = await asyncio.to_thread(
        subprocess.run, program, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.stdout, done.stderr) == ("snapshot-twin\n", "")
    await server.stop()


async def test_a_client_must_show_a_certificate_where_an_authority_of_theirs_is_named(
    twin: TwinRecommender, authority: Authority, tmp_path: Path
) -> None:
    clients = trustme.CA()
    client_ca = tmp_path / "clients.pem"
    client_ca.write_bytes(clients.cert_pem.bytes())
    files = TlsFiles(certificate=authority.files.certificate, key=authority.files.key, client_ca=client_ca)
    server = serving(twin, files)
    address = await server.start()
    known = clients.issue_cert("backend.example")
    unknown = trustme.CA().issue_cert("backend.example")

    async with AsyncClient(address, credentials=authority.trusted(known)) as client:
        assert (await client.similar(["item-0"], timeout_seconds=5.0)).results
    for credentials in (authority.trusted(), authority.trusted(unknown)):
        async with AsyncClient(address, credentials=credentials) as client:
            with pytest.raises(AnnserveError):
                await client.similar(["item-0"], timeout_seconds=1.0)
    await server.stop()


@pytest.mark.timeout(120)
async def test_certificates_are_renewed_a_hundred_times_and_no_call_fails(
    twin: TwinRecommender, authority: Authority
) -> None:
    server = serving(twin, authority.files)
    address = await server.start()
    over = asyncio.Event()
    answered = 0

    async def keep_calling() -> None:
        nonlocal answered
        while not over.is_set():
            # A connection of its own for every few calls, so that handshakes go on all the while.
            async with AsyncClient(address, credentials=authority.trusted(), timeout_seconds=5.0) as client:
                for _ in range(5):
                    await client.recommend(Similar(item_ids=["item-0"]))
                    answered += 1

    callers = [asyncio.create_task(keep_calling()) for _ in range(3)]
    seconds: list[float] = []
    for _ in range(ROTATIONS):
        wanted, begun = authority.renew(), time.monotonic()
        while await shown(address) != wanted:
            assert time.monotonic() < begun + TIMEOUT_SECONDS, "a new connection is shown the old certificate"
            await asyncio.sleep(0.02)
        seconds.append(time.monotonic() - begun)
    over.set()
    await asyncio.gather(*callers)
    await server.stop()

    # A machine that stalls holds up a few.
    assert sorted(seconds)[int(0.95 * ROTATIONS) - 1] < 1.0
    assert answered > ROTATIONS


def test_a_pair_that_does_not_belong_together_is_refused_at_start_and_passed_over_later(authority: Authority) -> None:
    reloader = CertificateReloader(authority.files)
    other = trustme.CA().issue_cert("localhost")
    authority.files.key.write_bytes(other.private_key_pem.bytes())

    reloader._looked_at = 0.0
    assert reloader._renewed() is None
    with pytest.raises(InputError, match="one pair"):
        CertificateReloader(authority.files)
    authority.files.key.unlink()
    reloader._looked_at = 0.0
    assert reloader._renewed() is None
    with pytest.raises(InputError, match=r"server\.key"):
        CertificateReloader(authority.files)


async def test_a_request_of_a_stranger_is_never_seen(twin: TwinRecommender, authority: Authority) -> None:
    server = serving(twin, authority.files)
    address = await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await service.RecommendationServiceStub(channel).Similar(
                messages.SimilarRequest(item_ids=["item-0"]), timeout=0.5
            )
    await server.stop()
    assert not twin.queries
