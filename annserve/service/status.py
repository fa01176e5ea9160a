"""The only table from a class of error to what goes over the wire: a code, a short message, `google.rpc` details."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from annserve.domain import errors
from annserve.domain.errors import AnnserveError

DOMAIN: Final = "annserve"

MESSAGE_BYTES_MAX: Final = 256
"""A message's length: trailers over 8 KiB may be replaced by RESOURCE_EXHAUSTED on the way, and lose the code."""

ECHO_BYTES_MAX: Final = 64
"""How much of a value that a caller sent is repeated to it, non-printable characters escaped."""

FIELD_BYTES_MAX: Final = 192
"""The length of a field's path, which is made of our own words: room for the longest in a filter at every limit."""

RETRY_AFTER_SECONDS: Final = 1

RETRY_SOON_MS: Final = (40, 120)
"""When to try again after a refusal for want of time: soon enough for two more tries within a call's 300 ms."""

Details = Callable[[AnnserveError], Iterable[Message]]


def _no_details(_error: AnnserveError) -> Iterable[Message]:
    return ()


def _bad_request(error: AnnserveError) -> Iterable[Message]:
    violations = error.violations if isinstance(error, errors.InvalidArgumentError) else ()
    bad_request = error_details_pb2.BadRequest()
    for violation in violations:
        bad_request.field_violations.add(
            field=_clipped(violation.field, FIELD_BYTES_MAX),
            description=_clipped(violation.description, MESSAGE_BYTES_MAX // 2),
        )
    yield bad_request


def _resource(kind: str, metadata_name: str) -> Details:
    def details(error: AnnserveError) -> Iterable[Message]:
        name = _echo(error.metadata[metadata_name])
        yield error_details_pb2.ResourceInfo(resource_type=f"{DOMAIN}/{kind}", resource_name=name)

    return details


def _precondition(kind: str, metadata_name: str, description: str) -> Details:
    def details(error: AnnserveError) -> Iterable[Message]:
        failure = error_details_pb2.PreconditionFailure()
        subject = f"{kind}/{_echo(error.metadata[metadata_name])}"
        failure.violations.add(type=error.reason, subject=subject, description=description)
        yield failure

    return details


def _retry_later(_error: AnnserveError) -> Iterable[Message]:
    yield error_details_pb2.RetryInfo(retry_delay=Duration(seconds=RETRY_AFTER_SECONDS))


def _retry_soon(_error: AnnserveError) -> Iterable[Message]:
    delay = Duration()
    delay.FromMilliseconds(random.randint(*RETRY_SOON_MS))  # noqa: S311 - spread, not secrecy
    yield error_details_pb2.RetryInfo(retry_delay=delay)


def _quota(error: AnnserveError) -> Iterable[Message]:
    failure = error_details_pb2.QuotaFailure()
    failure.violations.add(subject=f"key:{_echo(error.metadata['key'])}", description="calls a second of this key")
    yield failure
    if isinstance(error, errors.RateLimitedError):
        delay = Duration()
        delay.FromMilliseconds(round(error.wait_seconds * 1e3) + 1)
        yield error_details_pb2.RetryInfo(retry_delay=delay)


TABLE: Final[Mapping[type[AnnserveError], tuple[grpc.StatusCode, Details]]] = {
    errors.InvalidArgumentError: (grpc.StatusCode.INVALID_ARGUMENT, _bad_request),
    errors.UnknownItemError: (grpc.StatusCode.NOT_FOUND, _resource("item", "item_id")),
    errors.UnknownUserError: (grpc.StatusCode.NOT_FOUND, _resource("user", "user_id")),
    errors.UnknownPlacementError: (grpc.StatusCode.NOT_FOUND, _resource("placement", "placement")),
    errors.SnapshotNotHereError: (grpc.StatusCode.NOT_FOUND, _resource("snapshot", "wanted_id")),
    errors.NoSnapshotError: (grpc.StatusCode.UNAVAILABLE, _retry_later),
    errors.DeadlineExceededError: (grpc.StatusCode.DEADLINE_EXCEEDED, _no_details),
    errors.UnauthenticatedError: (grpc.StatusCode.UNAUTHENTICATED, _no_details),
    errors.PermissionDeniedError: (grpc.StatusCode.PERMISSION_DENIED, _no_details),
    errors.RateLimitedError: (grpc.StatusCode.RESOURCE_EXHAUSTED, _quota),
    errors.OverloadedError: (grpc.StatusCode.UNAVAILABLE, _retry_soon),
    errors.FoldInUnavailableError: (
        grpc.StatusCode.FAILED_PRECONDITION,
        _precondition("snapshot", "snapshot_id", "a snapshot built with fold-in constants"),
    ),
    errors.NoCatalogError: (
        grpc.StatusCode.FAILED_PRECONDITION,
        _precondition("request", "field", "a server with a catalogue"),
    ),
    errors.CatalogUnavailableError: (grpc.StatusCode.UNAVAILABLE, _retry_later),
    errors.EventsUnavailableError: (grpc.StatusCode.UNAVAILABLE, _retry_later),
    errors.FieldNotIndexedError: (
        grpc.StatusCode.FAILED_PRECONDITION,
        _precondition("field", "field", "an index that filters on this field can use"),
    ),
    errors.UnknownSnapshotError: (grpc.StatusCode.NOT_FOUND, _resource("snapshot", "snapshot_id")),
    errors.UnknownWorkerError: (grpc.StatusCode.NOT_FOUND, _resource("worker", "slot")),
    errors.ActivationRefusedError: (
        grpc.StatusCode.FAILED_PRECONDITION,
        _precondition("snapshot", "snapshot_id", "a snapshot that is whole, and fits"),
    ),
    errors.InstanceRefusedError: (
        grpc.StatusCode.FAILED_PRECONDITION,
        _precondition("instance", "cause", "an instance that can do this"),
    ),
    errors.InstanceUnavailableError: (grpc.StatusCode.UNAVAILABLE, _retry_later),
    errors.NotEnabledError: (
        grpc.StatusCode.FAILED_PRECONDITION,
        _precondition("feature", "feature", "an instance that was started with it"),
    ),
}

_IN_OUR_OWN_WORDS: Final = (
    errors.InvalidArgumentError,
    errors.CatalogUnavailableError,
    errors.EventsUnavailableError,
    errors.ActivationRefusedError,
    errors.InstanceRefusedError,
    errors.InstanceUnavailableError,
)
"""What these say no caller chose, so it may be longer than an echo."""

NEVER_ON_THE_WIRE: Final = (errors.SnapshotRefusedError, errors.BuildError, errors.InputError)
"""Raised while building, loading or starting, with all their subclasses; met in a call they are faults: INTERNAL."""


def status_of(error: Exception, request_id: str) -> status_pb2.Status:
    """Return what ``error`` looks like to a caller: INTERNAL, with a fixed text, when it is not in the table.

    The message is at most `MESSAGE_BYTES_MAX` bytes, all together under 4 KiB.
    """
    if not isinstance(error, AnnserveError) or type(error) not in TABLE:
        info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"request_id": request_id})
        message = f"internal error; the server's log has more under request id {request_id}"
        return _packed(grpc.StatusCode.INTERNAL, message, [info])
    code, details = TABLE[type(error)]
    bytes_max = MESSAGE_BYTES_MAX if isinstance(error, _IN_OUR_OWN_WORDS) else ECHO_BYTES_MAX
    metadata, message = {}, error.message
    for name, value in error.metadata.items():
        escaped = _escaped(value)
        metadata[name] = _clipped(escaped, bytes_max)
        # Every value in a message is in the metadata too, so that is how to find it there.
        message = message.replace(escaped, metadata[name])
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    return _packed(code, _clipped(message, MESSAGE_BYTES_MAX), [info, *details(error)])


def _packed(code: grpc.StatusCode, message: str, details: Iterable[Message]) -> status_pb2.Status:
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        status.details.add().Pack(detail)
    return status


def _echo(value: str) -> str:
    return _clipped(_escaped(value), ECHO_BYTES_MAX)


def _escaped(value: str) -> str:
    """Return ``value`` as `repr` shows it: letters of any script stay, what a terminal would act on does not."""
    return repr(value)[1:-1]


def _clipped(text: str, bytes_max: int) -> str:
    """Return ``text``, or as much of it as fits into ``bytes_max`` bytes of UTF-8 with an ellipsis."""
    encoded = text.encode()
    if len(encoded) <= bytes_max:
        return text
    ellipsis = "…"
    return encoded[: bytes_max - len(ellipsis.encode())].decode(errors="ignore") + ellipsis
