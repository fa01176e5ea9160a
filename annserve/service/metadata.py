"""An item's metadata to its message."""

from __future__ import annotations

from annserve.domain.catalog import Metadata
from annserve.domain.filter import Scalar
from annserve.service.limits import TIME_SECONDS_MAX, TIME_SECONDS_MIN
from annserve.v1 import recommendation_pb2 as messages


def write_metadata(metadata: Metadata, result: messages.Recommendation) -> None:
    """Write the fields of ``metadata`` into ``result``, those aside that hold nothing a message can."""
    for name, held in metadata.items():
        sendable = [value for value in held if _is_sendable(value)]
        if held and not sendable:
            continue
        values = result.metadata[name].values
        for value in sendable:
            match value:
                case str():
                    values.add(string_value=value)
                case bool():
                    values.add(bool_value=value)
                case float():
                    values.add(number_value=value)
                case int():
                    time = values.add().time_value
                    time.seconds, milliseconds = divmod(value, 1_000)
                    time.nanos = milliseconds * 1_000_000


def _is_sendable(value: Scalar) -> bool:
    """Return whether a message can hold ``value``: documents hold half characters, and times that no calendar has."""
    match value:
        case str():
            return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
        case bool() | float():
            return True
        case int():
            return TIME_SECONDS_MIN <= value // 1_000 <= TIME_SECONDS_MAX
