"""The table of statuses is complete, and what it sends stays small."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.rpc import error_details_pb2, status_pb2

from annserve.domain import errors
from annserve.domain.errors import AnnserveError, FieldViolation, InvalidArgumentError
from annserve.service.status import NEVER_ON_THE_WIRE, TABLE, status_of
from annserve.v1 import error_reason_pb2


def _subclasses(of: type[AnnserveError]) -> Iterator[type[AnnserveError]]:
    for subclass in of.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _info(status: status_pb2.Status) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info


@pytest.mark.parametrize("error", list(_subclasses(AnnserveError)))
def test_every_error_is_in_the_table_or_declared_never_on_the_wire(error: type[AnnserveError]) -> None:
    assert (error in TABLE) != issubclass(error, NEVER_ON_THE_WIRE)


def test_reasons_on_the_wire_are_the_enum_of_the_contract() -> None:
    sent = {error.reason for error in TABLE} | {"INTERNAL"}
    declared = {name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name}

    assert sent == declared - {"UNSPECIFIED"}


def test_error_never_meant_for_the_wire_is_internal_and_says_nothing() -> None:
    status = status_of(errors.SnapshotChecksumError("/secret/path", "differs"), "id-1")

    assert status.code == 13
    assert "secret" not in str(status)
    assert _info(status).metadata == {"request_id": "id-1"}


@pytest.mark.parametrize("item_id", ["x" * 128, "상" * 42, "'\"\\" * 42, "\u202e" * 42])
def test_what_a_caller_sent_is_repeated_in_at_most_64_bytes(item_id: str) -> None:
    status = status_of(errors.UnknownItemError(item_id, "s1"), "id-1")

    assert len(_info(status).metadata["item_id"].encode()) <= 64
    assert status.message.endswith("… has no vector in snapshot 's1'") or "…' has no" in status.message
    assert len(status.message.encode()) <= 64 + len("item '' has no vector in snapshot 's1'")
    assert "\u202e" not in status.message


def test_short_id_of_any_script_is_repeated_as_it_is() -> None:
    assert (
        status_of(errors.UnknownItemError("상품-1", "s1"), "r").message
        == "item '상품-1' has no vector in snapshot 's1'"
    )


def test_status_at_its_largest_stays_below_4_kib_and_its_message_below_256_bytes() -> None:
    violations = [FieldViolation(field="options." + "x" * 500, description="y" * 5_000) for _ in range(10)]

    status = status_of(InvalidArgumentError(violations), "id-1")

    assert len(status.message.encode()) <= 256
    assert len(status.SerializeToString()) <= 4_096
    bad_request = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(bad_request)
    assert len(bad_request.field_violations) == 10
