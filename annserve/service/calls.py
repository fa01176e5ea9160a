"""What every method of every service has in common: bytes that may not decode, errors that become statuses."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Never, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2

from annserve.domain.errors import InvalidArgumentError
from annserve.service.context import Context
from annserve.service.request_id import HEADER
from annserve.service.status import status_of

Request = TypeVar("Request", bound=Message)

CODES: Final = {code.value[0]: code for code in grpc.StatusCode}

DETAILS: Final = "grpc-status-details-bin"
"""The metadata that holds a status with its details."""

_log = logging.getLogger(__name__)


def decoder(request_type: type[Request]) -> Callable[[bytes], Request | InvalidArgumentError]:
    """Return what decodes a request, or says that it cannot: an exception would be answered UNKNOWN by grpc itself."""

    def decode(data: bytes) -> Request | InvalidArgumentError:
        try:
            return request_type.FromString(data)
        except DecodeError:
            return InvalidArgumentError.of("request", f"must be an encoded {request_type.DESCRIPTOR.full_name}")

    return decode


def encode(response: Message) -> bytes:
    """Return the bytes of ``response``."""
    return response.SerializeToString()


def logged_status(error: Exception, request_id: str) -> status_pb2.Status:
    """Return the status of ``error``; a fault of ours, unlike a caller's mistake, is logged with its traceback."""
    status = status_of(error, request_id)
    if status.code == grpc.StatusCode.INTERNAL.value[0]:
        fields = {"event": "call_failed", "request_id": request_id, "code": "INTERNAL"}
        _log.error("call failed, request id %s", request_id, exc_info=error, extra=fields)
    return status


async def abort(context: Context, status: status_pb2.Status, request_id: str) -> Never:
    """End a call with ``status``, its details and the id in the trailing metadata."""
    trailing_metadata = ((DETAILS, status.SerializeToString()), (HEADER, request_id))
    await context.abort(CODES[status.code], status.message, trailing_metadata)
