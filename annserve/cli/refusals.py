"""What to say of a call that a running server refuses: what a person at the command line can do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import grpc

from annserve.cli.options import settings, variable_of
from annserve.settings import Settings
from annserve_client import AnnserveError

Port: TypeAlias = Literal["address", "admin_address"]
"""Which of an instance's ports was meant, by its setting."""

_NAMES: Final[Mapping[Port, str]] = {"address": "the query port", "admin_address": "the admin port"}
_OTHERS: Final[Mapping[Port, Port]] = {"address": "admin_address", "admin_address": "address"}


def refusal_of(error: AnnserveError, target: str, port: Port) -> str:
    """Return what to say of ``error``, with which ``target`` answered a call that was meant for ``port``."""
    if error.code is grpc.StatusCode.UNIMPLEMENTED and not error.reason:
        return (
            f"there is no such call at {target}, which seems to be {_NAMES[_OTHERS[port]]}: {_NAMES[port]} is "
            f"{Settings.model_fields[port].default} unless told otherwise, by --address or {variable_of(port)}"
        )
    if error.code is grpc.StatusCode.UNAUTHENTICATED:
        has_key = settings().api_key is not None
        said = "refuses the key in ANNSERVE_API_KEY" if has_key else "asks for an API key: set ANNSERVE_API_KEY"
        return f"{error.reason or error.code.name}: {target} {said}"
    return str(error)
