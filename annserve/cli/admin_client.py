"""The client of commands that operate a running instance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final

import typer

from annserve.cli.options import settings
from annserve.cli.output import fail
from annserve.cli.refusals import refusal_of
from annserve.cli.securing import api_key, channel_credentials, tls_advice
from annserve_client import AnnserveError, UnavailableError
from annserve_client.admin import AdminClient

AddressOption = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="Where the admin port is. [env: ANNSERVE_ADMIN_ADDRESS]")
]

WAIT_SECONDS: Final = 900.0
"""How long a change of snapshots is waited for."""


@contextmanager
def admin_client(address: str | None, wait_seconds: float = WAIT_SECONDS) -> Iterator[AdminClient]:
    """Give a client; whatever it raises ends the command with one line that says what to do."""
    known = settings()
    target = address or known.admin_address
    credentials, key = channel_credentials(known), api_key(known)
    try:
        with AdminClient(target, change_timeout_seconds=wait_seconds, credentials=credentials, api_key=key) as client:
            yield client
    except UnavailableError as error:
        if error.reason:
            raise fail(str(error)) from None
        raise fail(
            f"no answer from {target}: {error.args[0]}; "
            + tls_advice(error, "is an instance running, and its admin port there? `annserve serve --demo` starts one")
        ) from None
    except AnnserveError as error:
        raise fail(refusal_of(error, target, "admin_address")) from None
