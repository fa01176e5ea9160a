"""The name under which a failed call is found in the server's log."""

from __future__ import annotations

import re
import secrets
from typing import Final

from annserve.service.context import Context

HEADER: Final = "x-request-id"
_VALID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")


def request_id_of(context: Context) -> str:
    """Return the caller's own id where it is well-formed (1 to 64 of ``A-Z a-z 0-9 . _ : -``), else a new one.

    Only errors have an id, in their trailing metadata: reading a call's metadata costs 27 us, and initial metadata
    apart from the answer 43 us more, where a whole empty call costs 166 us.
    """
    for name, value in context.invocation_metadata() or ():
        if name == HEADER and isinstance(value, str) and _VALID.fullmatch(value):
            return value
    return secrets.token_hex(8)
