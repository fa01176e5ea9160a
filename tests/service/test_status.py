"""The table of statuses is complete, and what it sends stays small."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
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


@pytest.mark.parametrize(
    ("error", "subject"),
    [
        (errors.NoCatalogError("options.filter"), "request/options.filter"),
        (errors.FieldNotIndexedError("price"), "field/price"),
        (errors.FoldInUnavailableError("s1"), "snapshot/s1"),
    ],
)
def test_what_has_to_hold_first_is_told_with_its_subject(error: AnnserveError, subject: str) -> None:
    status = status_of(error, "r")

    failure = error_details_pb2.PreconditionFailure()
    assert status.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert status.details[1].Unpack(failure)
    assert [(violation.type, violation.subject) for violation in failure.violations] == [(error.reason, subject)]
    assert failure.violations[0].description


def test_catalogue_that_does_not_answer_is_worth_another_try() -> None:
    problem = "no server is known; the last error was that the connection was refused by 127.0.0.1:27017"

    status = status_of(errors.CatalogUnavailableError(problem), "r")

    retry = error_details_pb2.RetryInfo()
    assert status.code == grpc.StatusCode.UNAVAILABLE.value[0]
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.seconds >= 1
    assert _info(status).metadata == {"problem": problem}


def test_longest_path_in_a_filter_is_told_whole() -> None:
    path = "options.filter" + ".none_of.filters[62]" * 7 + ".condition.one_of.values[199]"

    status = status_of(InvalidArgumentError.of(path, "must be"), "r")

    bad_request = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(bad_request)
    assert bad_request.field_violations[0].field == path
