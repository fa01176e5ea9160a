"""Whole answers, kept as the bytes that go out: one to an equal request is found without decoding or encoding.

What an answer rests on is in its key: the request's bytes, user included, the snapshot, the versions of what is known
of the catalogue. What differs between two calls with one answer (ages, where it was) is a message of its own, appended:
concatenated messages merge.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

from cachetools import LRUCache

from annserve.cache.hot_keys import Asked
from annserve.cache.shared import CacheSource, Found, Made, SharedCache, Turn
from annserve.domain.catalog import Schema
from annserve.domain.deadline import Deadline
from annserve.domain.errors import InvalidArgumentError
from annserve.domain.ports import Basis, Recommender
from annserve.domain.query import Answer, Mode, Query
from annserve.domain.tracing import current_trace
from annserve.service import convert
from annserve.service.attribution import attribution_token
from annserve.service.calls import decoder, encode
from annserve.service.similar import PlainQuestion, PlainSimilar
from annserve.v1 import recommendation_pb2 as parts
from annserve.v1 import recommendation_service_pb2 as messages

REQUEST_BYTES_MAX: Final = 4_096
"""An answer to a longer request is not kept: it will hardly be asked again."""

_PLANS_KEPT: Final = 8_192
_HEADER: Final = struct.Struct("=?dI")
"""Whether the answer is complete, for one that is not kept; `Basis.as_of`; how many bytes of item ids follow."""
_SOURCES: Final = {
    CacheSource.NONE: parts.CACHE_SOURCE_NONE,
    CacheSource.WORKER: parts.CACHE_SOURCE_WORKER,
    CacheSource.INSTANCE: parts.CACHE_SOURCE_INSTANCE,
}

_TICKS_A_SECOND: Final = 100
"""Ages are told in hundredths of a second: what is said of one answer is said of many, and written once."""

Response: TypeAlias = (
    messages.SimilarResponse | messages.PersonalizeResponse | messages.RelatedResponse | messages.RecommendResponse
)


class Method(NamedTuple):
    """A method whose answers may be kept."""

    name: str
    request_type: type[Any]
    response_type: Callable[[], Response]
    query_of: Callable[[Any, Schema | None], Query]


class _Plan(NamedTuple):
    """What is known of a request from its bytes alone."""

    query: Query
    prefix: bytes
    """What the keys of its answers begin with."""
    ttl_seconds: float
    stale_seconds: float
    item_ids: tuple[str, ...]
    """The items it asks about."""


class _Begun(NamedTuple):
    """An answer that is this worker's to make."""

    data: bytes
    question: PlainQuestion
    plan: _Plan
    basis: Basis
    turn: Turn


class Answers:
    """Answers requests from ``recommender``, or from what is kept of its answers. One event loop uses it."""

    def __init__(
        self,
        recommender: Recommender,
        cache: SharedCache | None = None,
        ttl_seconds: float = 10.0,
        personal_ttl_seconds: float = 2.0,
    ) -> None:
        """Answer from ``recommender``.

        Args:
            recommender: Makes answers.
            cache: Keeps them; None to keep none.
            ttl_seconds: How long, at least 0; as long again they are given while they are made anew.
            personal_ttl_seconds: How long those for a user, whose history may grow.
        """
        self._recommender = recommender
        self._cache = cache
        self._ttl_seconds = ttl_seconds
        self._personal_ttl_seconds = personal_ttl_seconds
        self._plans: LRUCache[tuple[str, bytes], _Plan] = LRUCache(_PLANS_KEPT)
        self._asked = Asked(cache)

    @property
    def keeps_shared(self) -> bool:
        """Whether answers are kept that are the same for all who ask."""
        return self._cache is not None and self._ttl_seconds > 0.0

    async def warm(self, method: Method, data: bytes, deadline: Deadline) -> None:
        """Keep the answer to ``data``, which nobody asked; raises as `answer`."""
        await self._answered(method, data, deadline, is_asked=False)

    async def answer(self, method: Method, data: bytes, deadline: Deadline) -> bytes:
        """Return the encoded answer to ``data``, an encoded request.

        Raises:
            AnnserveError: as `convert.similar_query` and `Recommender.recommend`.
        """
        return await self._answered(method, data, deadline, is_asked=True)

    def kept(self, method: Method, data: bytes) -> bytes | None:
        """Return the encoded answer to ``data`` if it is kept and has not expired; None where it has to be made."""
        cache, plan = self._cache, self._plans.get((method.name, data))
        if cache is None or plan is None:
            return None
        query = plan.query
        basis = self._recommender.basis(query)
        if basis is None:
            return None
        found = cache.get(plan.prefix + _encoded(basis.versions), self._holds if query.options.read_mask else None)
        if found is None:
            return None
        self._note(method, data, plan, found)
        return _assembled(found, basis)

    def together(self, method: Method, similar: PlainSimilar, requests: Sequence[bytes]) -> list[bytes | None]:
        """Return the encoded answers to ``requests``, made at once by ``similar`` and kept as `answer` keeps them.

        None for each that `answer` has to give: it is not plain, or somebody makes it already.
        """
        cache = self._cache
        if cache is None or not similar.is_open:
            return [None] * len(requests)
        answers: dict[bytes, bytes] = {}
        with ExitStack() as turns:
            begun: list[_Begun] = []
            for data in dict.fromkeys(requests):
                question = similar.read(data)
                if question is None:
                    continue
                plan = self._plans.get((method.name, data)) or self._plan(method, data, question.query)
                basis = None if plan is None else self._recommender.basis(plan.query)
                if plan is None or basis is None:
                    continue
                turn = cache.begin(plan.prefix + _encoded(basis.versions))
                if isinstance(turn, Found):
                    self._note(method, data, plan, turn)
                    answers[data] = _assembled(turn, basis)
                elif turn is not None:
                    turns.callback(cache.give_up, turn)
                    begun.append(_Begun(data, question, plan, basis, turn))
            made = similar.made([one.question for one in begun])
            for (data, _, plan, basis, turn), body in zip(begun, made, strict=True):
                if body is not None:
                    value = _HEADER.pack(False, basis.as_of, 0) + body
                    found = cache.complete(turn, value, plan.ttl_seconds, plan.stale_seconds)
                    self._note(method, data, plan, found)
                    answers[data] = _assembled(found, basis)
        # Whoever asks the same as another is given what that one has been given.
        return [answers.pop(data) if data in answers else self.kept(method, data) for data in requests]

    def _note(self, method: Method, data: bytes, plan: _Plan, found: Found) -> None:
        # What says anything of a user is never asked for anybody else.
        request = (method.name, data) if plan.query.mode is Mode.SIMILAR else None
        self._asked.note(plan.item_ids, found.source is not CacheSource.NONE, request)

    async def _answered(self, method: Method, data: bytes, deadline: Deadline, *, is_asked: bool) -> bytes:
        cache, plan = self._cache, self._plans.get((method.name, data))
        query = self._query(method, data) if plan is None else plan.query
        if plan is None:
            plan = self._plan(method, data, query)
        basis = None if plan is None else self._recommender.basis(query)
        if cache is None or plan is None or basis is None:
            response = method.response_type()
            await answer_into(self._recommender, response, query, deadline)
            return encode(response)

        async def compute() -> Made:
            return await self._made(method, query, basis, deadline)

        found = await cache.get_or_compute(
            plan.prefix + _encoded(basis.versions),
            compute,
            plan.ttl_seconds,
            plan.stale_seconds,
            wait_seconds=deadline.at - time.monotonic(),
            holds=self._holds if query.options.read_mask else None,
        )
        if is_asked:
            if (trace := current_trace.get()) is not None:
                trace.note("cache", found.source.name.lower())
            self._note(method, data, plan, found)
        return _assembled(found, basis)

    def _query(self, method: Method, data: bytes) -> Query:
        request = decoder(method.request_type)(data)
        if isinstance(request, InvalidArgumentError):
            raise request
        return method.query_of(request, self._recommender.schema)

    def _plan(self, method: Method, data: bytes, query: Query) -> _Plan | None:
        """Return how answers to ``query`` are kept; None where they are not."""
        options = query.options
        ttl_seconds = self._ttl_seconds if query.user_id is None else self._personal_ttl_seconds
        if (
            self._cache is None
            or len(data) > REQUEST_BYTES_MAX
            or ttl_seconds == 0.0
            or options.explain
            or options.bypass_cache
            or options.max_staleness_seconds == 0.0
        ):
            return None
        prefix = b"\0".join((method.name.encode(), self._recommender.snapshot_id.encode(), data))
        stale_seconds = ttl_seconds if query.user_id is None else 0.0
        item_ids = tuple(dict.fromkeys(query.item_ids))
        plan = _Plan(query, prefix, ttl_seconds, stale_seconds, item_ids)
        self._plans[method.name, data] = plan
        return plan

    async def _made(self, method: Method, query: Query, basis: Basis, deadline: Deadline) -> Made:
        response = method.response_type()
        answer = await recommended(self._recommender, query, deadline)
        now = self._recommender.basis(query)
        # What changed meanwhile may be in the answer, or not.
        is_kept = now is not None and now.versions == basis.versions
        is_kept = is_kept and not answer.degradations and answer.selectivity is not None
        write_answer(answer, query, response)
        if not is_kept:
            convert.write_serving_info(answer, response.recommendations.results, response.serving_info)
        ids = "\0".join(answer.item_ids).encode() if query.options.read_mask and is_kept else b""
        return Made(b"".join((_HEADER.pack(not is_kept, basis.as_of, len(ids)), ids, encode(response))), is_kept)

    def _holds(self, value: bytes) -> bool:
        """Return whether the metadata in a kept answer is still what the catalogue says."""
        _, as_of, ids_bytes = _HEADER.unpack_from(value)
        ids = value[_HEADER.size : _HEADER.size + ids_bytes].decode()
        return self._recommender.unchanged(ids.split("\0") if ids else (), as_of)


async def recommended(recommender: Recommender, query: Query, deadline: Deadline) -> Answer:
    """Return the answer to ``query``; an argument that is wrong through no fault of the caller's is a fault of ours."""
    try:
        return await recommender.recommend(query, deadline)
    except InvalidArgumentError as error:
        if convert.is_fault_of_caller(error, query.mode):
            raise
        raise RuntimeError("an argument that is no field of the request was refused") from error


async def answer_into(
    recommender: Recommender, response: Response | messages.BatchRecommendResult, query: Query, deadline: Deadline
) -> None:
    """Write the answer to ``query`` into an empty ``response``, all of it made now."""
    answer = await recommended(recommender, query, deadline)
    write_answer(answer, query, response)
    convert.write_serving_info(answer, response.recommendations.results, response.serving_info)


def write_answer(answer: Answer, query: Query, response: Response | messages.BatchRecommendResult) -> None:
    """Write what is the same for all calls with this answer."""
    convert.write_answer(answer, response.recommendations)
    response.serving_info.attribution_token = attribution_token(answer.snapshot_id, query, answer.placement)


@lru_cache(maxsize=64)  # They change with the items, and are asked for by every call.
def _encoded(versions: tuple[int, ...]) -> bytes:
    return struct.pack(f"={len(versions)}QB", *versions, min(len(versions), 255))


def _assembled(found: Found, basis: Basis) -> bytes:
    is_complete, _, ids_bytes = _HEADER.unpack_from(found.value)
    body = found.value[_HEADER.size + ids_bytes :]
    if is_complete:
        return body
    is_new = found.source is CacheSource.NONE
    age = None if is_new else _ticks(time.monotonic() - found.made_at)
    catalog_age = None if basis.age_seconds is None else _ticks(basis.age_seconds)
    return body + _serving_info(found.source, age, catalog_age)


def _ticks(seconds: float) -> int:
    return int(seconds * _TICKS_A_SECOND)


@lru_cache(maxsize=4_096)
def _serving_info(source: CacheSource, age: int | None, catalog_age: int | None) -> bytes:
    """Return what is said of the making of an answer, as the end of any response; ages in ticks."""
    # The field is the same in every response.
    response = messages.SimilarResponse()
    info = response.serving_info
    info.cache.source = _SOURCES[source]
    if age is not None:
        info.cache.age.FromMilliseconds(age * 1_000 // _TICKS_A_SECOND)
    if catalog_age is not None:
        info.catalog_age.FromMilliseconds(catalog_age * 1_000 // _TICKS_A_SECOND)
    return response.SerializeToString()
