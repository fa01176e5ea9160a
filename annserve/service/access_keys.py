"""API keys: who may call what, how often, until when. A file holds their hashes; it is read again when it changes."""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Final

import yaml
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from annserve.domain.errors import InputError
from annserve.domain.value_problems import key_problems

PREFIX: Final = "ann_"
"""What keys begin with, so that a scanner of secrets recognises one."""

LOOK_SECONDS: Final = 0.5
_KEYS_MAX: Final = 1_000
_SECRET_BYTES: Final = 32

_log = logging.getLogger(__name__)


class Scope(str, Enum):
    """What a key is good for."""

    QUERY = "query"
    """`RecommendationService`."""
    EVENTS = "events"
    """`EventService`."""
    ADMIN = "admin"
    """`AdminService`."""


class AccessKey(BaseModel):
    """An entry of the file: a key by its hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9._-]{1,64}\z")]
    """Who it is, in logs and metrics."""
    sha256: Annotated[str, StringConstraints(pattern=r"\A[0-9a-f]{64}\z")]
    """Of the key, in hexadecimal. A key has 256 random bits, so no slower hash is needed."""
    scopes: Annotated[frozenset[Scope], Field(min_length=1)]
    expires: AwareDatetime | None = None
    calls_per_second: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """How many calls each worker takes of it; twice as many may come at once. Any number unless set."""

    def is_expired(self, now: datetime) -> bool:
        """Return whether it is no good any more."""
        return self.expires is not None and now >= self.expires


class _KeyFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: Annotated[list[AccessKey], Field(max_length=_KEYS_MAX)]

    @model_validator(mode="after")
    def _are_different(self) -> _KeyFile:
        digests = [key.sha256 for key in self.keys]
        if repeated := {digest for digest in digests if digests.count(digest) > 1}:
            raise ValueError(f"the same key is there twice: {min(repeated)[:12]}…")
        return self


def read_keys(path: Path) -> tuple[AccessKey, ...]:
    """Return the keys in ``path``.

    Raises:
        InputError: it cannot be read, or an entry is not as it must be; the message names entry and field.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        return tuple(_KeyFile.model_validate(found).keys)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the API keys cannot be read: {error}", path=path) from error
    except yaml.YAMLError as error:
        # What stands there is not repeated: somebody may have put a key in the place of its hash.
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark is not None else ""
        raise InputError(f"{path}{place}: this is no YAML", path=path) from None
    except ValidationError as error:
        # What stands there is not repeated here either.
        first = error.errors(include_input=False, include_url=False)[:1]
        raise InputError(f"{path}: {key_problems(first, 'the file')}", path=path) from None


def new_key() -> tuple[str, str]:
    """Return a new key and its hash."""
    key = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    return key, hashed(key)


def hashed(key: str) -> str:
    """Return what the file holds of ``key``."""
    return hashlib.sha256(key.encode()).hexdigest()


class AccessKeys:
    """The keys of the file as it is now. One event loop asks."""

    def __init__(self, path: Path) -> None:
        """Read ``path``; raises as `read_keys`."""
        self._path = path
        self._stamp = self._stamped()
        self._by_hash = {key.sha256: key for key in read_keys(path)}
        self._looked_at = time.monotonic()

    def find(self, key: str) -> AccessKey | None:
        """Return the entry of ``key``, None for one that is unknown or expired."""
        self._look()
        # Found by hash: how long it takes says nothing of keys that exist.
        found = self._by_hash.get(hashed(key))
        return None if found is None or found.is_expired(datetime.now(UTC)) else found

    def _look(self) -> None:
        now = time.monotonic()
        if now < self._looked_at + LOOK_SECONDS:
            return
        self._looked_at = now
        stamp = self._stamped()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._by_hash = {key.sha256: key for key in read_keys(self._path)}
        except InputError as error:
            _log.error("the API keys stay what they were: %s", error)
        else:
            _log.info("the API keys were read anew: %d", len(self._by_hash))

    def _stamped(self) -> tuple[int, int, int] | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ino, stat.st_size
