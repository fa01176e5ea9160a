"""One class per reason a thing can be refused. No transport here: `service.status` maps each to a code.

::

    AnnserveError
    ├── InvalidArgumentError            a request or argument is wrong whatever the state
    ├── UnknownItemError, UnknownUserError   a strict request names an id without a vector
    ├── UnknownPlacementError   there is no placement of that name
    ├── SnapshotNotHereError            a pinned snapshot is not the one being served
    ├── NoSnapshotError                 nothing to serve yet
    ├── DeadlineExceededError           the caller's time is up
    ├── UnauthenticatedError, PermissionDeniedError, RateLimitedError   who calls may not, or not so often
    ├── OverloadedError                 more is asked than can be answered in time
    ├── FoldInUnavailableError          the snapshot has no fold-in constants
    ├── NoCatalogError                  metadata or a filter is asked for, and there is no catalogue
    ├── CatalogUnavailableError         the catalogue does not answer, or knows too old a state
    ├── EventsUnavailableError          events cannot be kept now
    ├── FieldNotIndexedError            a filter would read every document
    ├── UnknownSnapshotError, UnknownWorkerError   what is to be operated on is not here
    ├── ActivationRefusedError          a snapshot was not taken into service
    ├── InstanceRefusedError            the instance cannot do what it was told
    ├── InstanceUnavailableError        the part of the instance that would do it does not answer
    ├── NotEnabledError                 the instance was started without a feature
    ├── SnapshotRefusedError            a snapshot that must not be loaded
    │   ├── SnapshotIncompleteError, SnapshotChecksumError, SnapshotFormatError
    │   └── SnapshotSchemaError, SnapshotRecallError
    ├── BuildError                      a snapshot that must not be built
    │   ├── BadVectorsError, DuplicateIdsError, RecallNotReachedError
    └── InputError                      a file or column the user named cannot be used
        └── TooManyBadRowsError
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class AnnserveError(Exception):
    """The base of every refusal. ``metadata`` holds, as strings, every value the text mentions."""

    reason: ClassVar[str]

    def __init__(self, message: str, **metadata: object) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = {name: str(value) for name, value in metadata.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """One wrong field: its path (``options.page_size``) and what must hold."""

    field: str
    description: str


class InvalidArgumentError(AnnserveError):
    """One or more fields are outside what the contract allows."""

    reason = "INVALID_ARGUMENT"

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        super().__init__(
            "; ".join(f"{violation.field}: {violation.description}" for violation in violations),
            fields=",".join(violation.field for violation in violations),
        )
        self.violations = tuple(violations)

    @classmethod
    def of(cls, field: str, description: str) -> InvalidArgumentError:
        """Return the error of a single field."""
        return cls([FieldViolation(field=field, description=description)])


class UnknownItemError(AnnserveError):
    """A strict request names items that have no vector in the snapshot being served."""

    reason = "UNKNOWN_ITEM"

    def __init__(self, item_id: str, snapshot_id: str) -> None:
        super().__init__(
            f"item {item_id!r} has no vector in snapshot {snapshot_id!r}", item_id=item_id, snapshot_id=snapshot_id
        )


class UnknownUserError(AnnserveError):
    """A strict request names a user that has no vector in the snapshot being served."""

    reason = "UNKNOWN_USER"

    def __init__(self, user_id: str, snapshot_id: str) -> None:
        super().__init__(
            f"user {user_id!r} has no vector in snapshot {snapshot_id!r}", user_id=user_id, snapshot_id=snapshot_id
        )


class UnknownPlacementError(AnnserveError):
    """The request names a placement that there is not."""

    reason = "UNKNOWN_PLACEMENT"

    NAMES_SHOWN: ClassVar = 8

    def __init__(self, placement: str, names: Sequence[str]) -> None:
        """Say that ``placement`` is none, and which of ``names``, in order, are beside where it would be.

        To look for what is spelt alike would take hundreds of microseconds a name, and any caller can bring it about.
        """
        start = max(0, min(bisect(names, placement) - self.NAMES_SHOWN // 2, len(names) - self.NAMES_SHOWN))
        near = names[start : start + self.NAMES_SHOWN]
        more = f" and {len(names) - len(near):,} more" if len(names) > len(near) else ""
        there_are = ", ".join(near) + more or "none"
        super().__init__(f"there is no placement {placement!r}; there are {there_are}", placement=placement)


class SnapshotNotHereError(AnnserveError):
    """The request pins a snapshot that this instance does not serve."""

    reason = "SNAPSHOT_NOT_HERE"

    def __init__(self, wanted_id: str, snapshot_id: str) -> None:
        super().__init__(
            f"snapshot {wanted_id!r} is not served here, {snapshot_id!r} is",
            wanted_id=wanted_id,
            snapshot_id=snapshot_id,
        )


class NoSnapshotError(AnnserveError):
    """There is no snapshot to serve."""

    reason = "NO_SNAPSHOT"


class DeadlineExceededError(AnnserveError):
    """The caller's deadline, or the server's own cap, has passed."""

    reason = "DEADLINE_EXCEEDED"

    def __init__(self, stage: str) -> None:
        super().__init__(f"the deadline passed during {stage}", stage=stage)


class UnauthenticatedError(AnnserveError):
    """The call brings no key, or none that is valid; which of the two it does not say."""

    reason = "UNAUTHENTICATED"

    def __init__(self) -> None:
        super().__init__("a valid API key is needed, in the call's metadata: authorization: Bearer KEY")


class PermissionDeniedError(AnnserveError):
    """The call's key is not for this service."""

    reason = "WRONG_SCOPE"

    def __init__(self, scope: str) -> None:
        super().__init__(f"the API key does not have the scope {scope!r}", scope=scope)


class RateLimitedError(AnnserveError):
    """The call's key was used more often than it may be."""

    reason = "RATE_LIMITED"

    def __init__(self, key_name: str, wait_seconds: float) -> None:
        super().__init__(f"the API key {key_name!r} is used more often than it may be", key=key_name)
        self.wait_seconds = wait_seconds


class OverloadedError(AnnserveError):
    """More is asked of this worker than it can answer in time; ``cause``, one word, says what is short."""

    reason = "OVERLOADED"

    THREADS: ClassVar = "threads"
    """For searches that take long."""
    CALLS: ClassVar = "calls"
    """Those that may be under way."""
    TIME: ClassVar = "time"
    """For calls that waited for their turn as long as any should take."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"too much is asked at once, short of {cause}; another worker may have time", cause=cause)


class FoldInUnavailableError(AnnserveError):
    """The snapshot was imported without the constants that fold-in of recent items needs."""

    reason = "FOLD_IN_UNAVAILABLE"

    def __init__(self, snapshot_id: str) -> None:
        super().__init__(
            f"snapshot {snapshot_id!r} has no fold-in constants, so recent_items cannot be used",
            snapshot_id=snapshot_id,
        )


class NoCatalogError(AnnserveError):
    """A filter or metadata is asked for, and this server has no catalogue."""

    reason = "NO_CATALOG"

    def __init__(self, field: str) -> None:
        super().__init__(
            f"{field} needs a catalogue, and this server was started without one (--catalog, or ANNSERVE_CATALOG)",
            field=field,
        )


class CatalogUnavailableError(AnnserveError):
    """The catalogue does not answer, and nothing that is known of it is fresh enough to answer instead."""

    reason = "CATALOG_UNAVAILABLE"

    def __init__(self, problem: str) -> None:
        super().__init__(f"the catalogue cannot be asked: {problem}", problem=problem)


class EventsUnavailableError(AnnserveError):
    """Events cannot be kept now: their store does not answer, or too many wait for it."""

    reason = "EVENTS_UNAVAILABLE"

    def __init__(self, problem: str) -> None:
        super().__init__(f"events cannot be kept now: {problem}", problem=problem)


class FieldNotIndexedError(AnnserveError):
    """A filter on a field without an index would make the database read every document."""

    reason = "FIELD_NOT_INDEXED"

    def __init__(self, field: str) -> None:
        super().__init__(f"field {field!r} has no index: `annserve catalog ensure-indexes` makes it", field=field)


class UnknownSnapshotError(AnnserveError):
    """A snapshot that is to be served is not here; an empty id where none was live before."""

    reason = "UNKNOWN_SNAPSHOT"

    def __init__(self, snapshot_id: str) -> None:
        problem = f"there is no snapshot {snapshot_id!r} here" if snapshot_id else "there is no earlier snapshot here"
        super().__init__(problem, snapshot_id=snapshot_id)


class UnknownWorkerError(AnnserveError):
    """No worker is in the slot."""

    reason = "UNKNOWN_WORKER"

    def __init__(self, slot: int) -> None:
        super().__init__(f"there is no worker in slot {slot}", slot=slot)


class ActivationRefusedError(AnnserveError):
    """A snapshot is not taken into service; ``cause`` is a reason of `SnapshotRefusedError` or, say, ``MEMORY``."""

    reason = "ACTIVATION_REFUSED"

    def __init__(self, snapshot_id: str, cause: str, problem: str) -> None:
        super().__init__(
            f"snapshot {snapshot_id!r} is not served ({cause}): {problem}",
            snapshot_id=snapshot_id,
            cause=cause,
            problem=problem,
        )


class InstanceRefusedError(AnnserveError):
    """The instance cannot do what it was told as it is now; ``cause`` is one word."""

    reason = "INSTANCE_REFUSED"

    def __init__(self, cause: str, problem: str) -> None:
        super().__init__(f"the instance will not do this ({cause}): {problem}", cause=cause, problem=problem)


class InstanceUnavailableError(AnnserveError):
    """The part of the instance that would do it does not answer."""

    reason = "INSTANCE_UNAVAILABLE"

    def __init__(self, problem: str) -> None:
        super().__init__(f"the instance does not answer: {problem}", problem=problem)


class NotEnabledError(AnnserveError):
    """The instance was started without a feature."""

    reason = "NOT_ENABLED"

    def __init__(self, feature: str) -> None:
        super().__init__(f"this instance was started without {feature}", feature=feature)


class SnapshotRefusedError(AnnserveError):
    """A snapshot that must not be loaded; ``path`` names it."""

    reason = "SNAPSHOT_REFUSED"

    def __init__(self, path: object, problem: str) -> None:
        super().__init__(f"snapshot {path}: {problem}", path=path, problem=problem)
        self.problem = problem


class SnapshotIncompleteError(SnapshotRefusedError):
    """A file of the snapshot is missing, or it was never finished."""

    reason = "SNAPSHOT_INCOMPLETE"


class SnapshotChecksumError(SnapshotRefusedError):
    """A file is not the one the manifest describes, byte for byte."""

    reason = "SNAPSHOT_CHECKSUM"


class SnapshotFormatError(SnapshotRefusedError):
    """The manifest is not of a format this annserve reads."""

    reason = "SNAPSHOT_FORMAT"


class SnapshotSchemaError(SnapshotRefusedError):
    """The files are whole but contradict the manifest or each other."""

    reason = "SNAPSHOT_SCHEMA"


class SnapshotRecallError(SnapshotRefusedError):
    """The snapshot's graphs do not answer its own check queries at the recall it promises."""

    reason = "SNAPSHOT_RECALL"


class BuildError(AnnserveError):
    """A snapshot that must not be built."""

    reason = "BUILD_REFUSED"


class BadVectorsError(BuildError):
    """Vectors that are NaN, infinite or zero; the message names the first few ids."""

    reason = "BAD_VECTORS"


class DuplicateIdsError(BuildError):
    """Ids that occur more than once; the message names the first few."""

    reason = "DUPLICATE_IDS"


class RecallNotReachedError(BuildError):
    """No graph met the recall target, and exact search would be too slow."""

    reason = "RECALL_NOT_REACHED"


class InputError(AnnserveError):
    """A file, a column or an option the user named cannot be used; the message says what to do."""

    reason = "INPUT"


class TooManyBadRowsError(InputError):
    """More rows are unusable than the stated share; the message says which and why."""

    reason = "TOO_MANY_BAD_ROWS"
