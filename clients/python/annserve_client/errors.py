"""One class per family of status codes, each with the reason the server gave."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """One wrong field of a request: its path (``options.page_size``) and what must hold."""

    field: str
    description: str


class AnnserveError(Exception):
    """A call, or a row of a batch, that has no answer."""

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: tuple[FieldViolation, ...] = (),
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        """As in ``annserve.v1.ErrorReason``, for example ``UNKNOWN_ITEM``; empty for errors of gRPC itself."""
        self.metadata = dict(metadata or {})
        """Every value that the message mentions."""
        self.violations = violations
        self.request_id = request_id
        """What to look for in the server's log."""

    def __str__(self) -> str:
        return f"{self.reason or self.code.name}: {self.args[0]}"


class InvalidRequestError(AnnserveError):
    """The request is outside the contract; `violations` says where. Asking again will not help."""


class NotFoundError(AnnserveError):
    """A strict request named an id without a vector, or the pinned snapshot is not served."""


class PreconditionError(AnnserveError):
    """The snapshot cannot answer this kind of request."""


class UnavailableError(AnnserveError):
    """The server cannot be reached, is stopping, or has no snapshot, and retries were used up."""


class DeadlineError(AnnserveError):
    """The answer did not come in time."""


class ExhaustedError(AnnserveError):
    """A message was over its size limit, or a quota is used up."""


class AccessError(AnnserveError):
    """The server asks for an API key, and there is none, or none that is valid or good for this."""


class ServerError(AnnserveError):
    """A fault of the server, or a method that it does not have."""


_CLASSES: Mapping[grpc.StatusCode, type[AnnserveError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.CANCELLED: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ExhaustedError,
    grpc.StatusCode.UNAUTHENTICATED: AccessError,
    grpc.StatusCode.PERMISSION_DENIED: AccessError,
}
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def error_of_status(status: status_pb2.Status, request_id: str | None = None) -> AnnserveError:
    """Return the error that ``status`` describes; without a ``request_id``, it has the one among the details."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        # Unpack does nothing to a message of another type; details that this client cannot read are passed over.
        with suppress(DecodeError):
            detail.Unpack(info)
            detail.Unpack(bad_request)
    return _CLASSES.get(code, ServerError)(
        status.message,
        code=code,
        reason=info.reason,
        metadata=info.metadata,
        violations=tuple(
            FieldViolation(field=violation.field, description=violation.description)
            for violation in bad_request.field_violations
        ),
        request_id=request_id or info.metadata.get("request_id"),
    )


def error_of_call(error: Any) -> AnnserveError:
    """Return what ``error``, a `grpc.RpcError` of either kind of channel, stands for."""
    trailing = dict(error.trailing_metadata() or ())
    status = status_pb2.Status()
    # Anything on the way may have damaged the details; the code is worth having without them.
    with suppress(DecodeError):
        status = status_pb2.Status.FromString(trailing.get("grpc-status-details-bin", b""))
    # What the call itself says counts: a proxy may have changed the code and left the details.
    status.code = error.code().value[0]
    status.message = error.details() or ""
    return error_of_status(status, trailing.get("x-request-id"))
