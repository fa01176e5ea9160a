"""What an instance is asked most, told by its keeper to workers before they serve."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any

from annserve.cache.hot_keys import Request
from annserve.keeper.frames import Header

TOPIC = "hot"


class HotRequests:
    """The requests a worker answers before anybody asks."""

    def __init__(self) -> None:
        self.requests: Sequence[Request] = ()
        """Hottest first."""

    def hear(self, header: Header, payload: bytes) -> None:  # noqa: ARG002 - all is in the header
        """Take what the keeper tells of `TOPIC`."""
        self.requests = [(method, base64.b64decode(data)) for method, data in header["requests"]]


def told_of(requests: Iterable[Request]) -> tuple[str, dict[str, Any], bytes]:
    """Return what the keeper tells so that `HotRequests.hear` takes ``requests``."""
    return TOPIC, {"requests": [(method, base64.b64encode(data).decode()) for method, data in requests]}, b""
