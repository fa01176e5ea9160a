"""Similar about one item, as most calls are: from the bytes of several requests to the bytes of their answers.

A request's bytes begin with its item; what follows, its options, is the same from call to call, read once, and all that
an answer owes to them is written once. Bytes and answers are those of `Answers`, to the last bit, and whatever is not
plain is left to it: other options, unknown items, errors.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from google.protobuf.message import DecodeError

from annserve.domain.errors import AnnserveError
from annserve.domain.ids import id_problem
from annserve.domain.query import Answer, Mode, Options, Query, SearchPath, Source
from annserve.service import convert
from annserve.service.attribution import SeedTokens
from annserve.service.wire import varint
from annserve.v1 import recommendation_service_pb2 as messages

_ITEM_IDS: Final = 0x0A
"""A request's first byte where its first field is an item id; the second is the id's length where that is below 128."""
_SHORT: Final = 0x80
_ENDINGS_KEPT: Final = 256
_IDS_KEPT: Final = 1 << 17
"""So many items' own parts of a row are kept, about 200 bytes each."""
_RESULT_END: Final = b"\x18\x01"
"""`Recommendation.source`: SOURCE_ITEM_VECTOR."""


class SimilarSearch(Protocol):
    """Searches for several items at once; `engine.similar_together.SimilarTogether` does."""

    @property
    def snapshot_id(self) -> str:
        """The snapshot every answer comes from."""
        ...

    @property
    def versions(self) -> tuple[int, ...]:
        """What is equal as long as the items are the same."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether no item has to be left out: else there is nothing to be found here."""
        ...

    @property
    def selectivity(self) -> float:
        """The share of items that are eligible."""
        ...

    def at_most(self, k: int) -> int:
        """Return how many may be asked at once."""
        ...

    def search(self, item_ids: Sequence[str], k: int) -> Sequence[tuple[list[int], list[float]] | None]:
        """Return rows and scores for each item, None where an answer has to be made in another way."""
        ...

    def ids(self, rows: Sequence[int]) -> Sequence[str]:
        """Return the ids of rows."""
        ...


class _Ending(NamedTuple):
    """What the bytes after a request's item come to."""

    options: Options
    tokens: SeedTokens
    scores: struct.Struct
    """Packs the scores of a whole answer."""
    recommendations: bytes
    """The fields of `Recommendations` but for the results."""


class PlainQuestion(NamedTuple):
    """What a request that is plain asks."""

    item_id: str
    ending: _Ending

    @property
    def query(self) -> Query:
        """The same as `convert.similar_query` makes of the request."""
        return Query(mode=Mode.SIMILAR, item_ids=(self.item_id,), options=self.ending.options)


class PlainSimilar:
    """Answers such requests. One event loop uses it."""

    def __init__(
        self, search: SimilarSearch, made: Callable[[float, int], None] = lambda _seconds, _count: None
    ) -> None:
        """Answer from ``search``, and tell ``made`` how many seconds it took to make how many answers at once."""
        self._search = search
        self._made = made
        self._versions = search.versions
        self._endings: dict[bytes, _Ending | None] = {}
        self._results: dict[int, bytes] = {}
        self.at_most = search.at_most(Options().k)
        """How many requests may be answered at once; 0 where none can be."""

    @property
    def is_open(self) -> bool:
        """Whether any request can be answered now."""
        return self._search.is_open

    def read(self, data: bytes) -> PlainQuestion | None:
        """Return what a request asks; None for one that `Answers` has to answer."""
        if len(data) < 3 or data[0] != _ITEM_IDS or data[1] >= _SHORT:
            return None
        end = data[1] + 2
        if end > len(data) or (ending := self._ending(data[end:])) is None:
            return None
        try:
            item_id = data[2:end].decode()
        except UnicodeDecodeError:
            return None
        return None if id_problem(item_id) else PlainQuestion(item_id, ending)

    def answers(self, requests: Sequence[bytes]) -> list[bytes | None]:
        """Return the encoded answer to each request, None for one that `Answers` has to answer."""
        questions = [self.read(data) for data in requests]
        made = iter(self.made([question for question in questions if question is not None]))
        return [None if question is None else next(made) for question in questions]

    def made(self, questions: Sequence[PlainQuestion]) -> list[bytes | None]:
        """Return the encoded answer to each question, None for one that `Answers` has to answer."""
        began = time.perf_counter()
        answers: list[bytes | None] = [None] * len(questions)
        alike: dict[int, list[int]] = {}
        for place, (_, ending) in enumerate(questions):
            alike.setdefault(ending.options.k, []).append(place)
        for k, places in alike.items():
            found = self._search.search([questions[place].item_id for place in places], k)
            for place, one in zip(places, found, strict=True):
                # A score of 0 is not written, as protobuf has it.
                if one is not None and all(one[1]):
                    answers[place] = self._encoded(*questions[place], *one)
        if made_count := len(answers) - answers.count(None):
            self._made(time.perf_counter() - began, made_count)
        return answers

    def _ending(self, data: bytes) -> _Ending | None:
        if self._search.versions != self._versions:
            self._versions = self._search.versions
            self._endings.clear()  # They say how many items there are.
        try:
            return self._endings[data]
        except KeyError:
            if len(self._endings) >= _ENDINGS_KEPT:
                self._endings.clear()  # Callers may send what they like.
            ending = self._endings[data] = self._read_ending(data)
            return ending

    def _read_ending(self, data: bytes) -> _Ending | None:
        try:
            request = messages.SimilarRequest.FromString(data)
            # A request is what its parts are, merged: without an item this is its options, and any will do as the item.
            if request.item_ids:
                return None
            request.item_ids.append("any")
            options = convert.similar_query(request, None).options
        except (AnnserveError, DecodeError):
            return None
        search, k = self._search, options.k
        # Of what is not set here, these two mean nothing to Similar.
        plain = Options(k=k, exclude_seen=options.exclude_seen, popularity_weight=options.popularity_weight)
        # Many items take longer: those may hold up the loop for twice as long as is meant for it, and no longer.
        if options != plain or not 0 < self.at_most <= 2 * search.at_most(k):
            return None
        response = messages.SimilarResponse()
        empty = Answer(
            snapshot_id=search.snapshot_id,
            item_ids=(),
            scores=(),
            source=Source.ITEM_VECTOR,
            search_path=SearchPath.HNSW,
            selectivity=search.selectivity,
        )
        convert.write_answer(empty, response.recommendations)
        return _Ending(
            options=options,
            tokens=SeedTokens(search.snapshot_id, options),
            scores=struct.Struct(f"<{k}f"),
            recommendations=_RESULT_END + response.recommendations.SerializeToString(),
        )

    def _encoded(self, item_id: str, ending: _Ending, rows: list[int], scores: list[float]) -> bytes:
        kept, packed = self._results, ending.scores.pack(*scores)
        try:
            begun = [kept[row] for row in rows]
        except KeyError:
            begun = self._begun(rows)
        parts = [b""] * (2 * len(rows))
        parts[::2] = begun
        parts[1::2] = [packed[start : start + 4] for start in range(0, len(packed), 4)]
        # Each part begins by ending the one before, and the first has none.
        parts[0] = parts[0][len(_RESULT_END) :]
        recommendations = b"".join((*parts, ending.recommendations))
        token = ending.tokens.of(item_id).encode()
        return b"".join((b"\x0a", varint(len(recommendations)), recommendations, b"\x12\x22\x0a\x20", token))

    def _begun(self, rows: list[int]) -> list[bytes]:
        kept = self._results
        if len(kept) > _IDS_KEPT - len(rows):
            kept.clear()
        missing = [row for row in rows if row not in kept]
        for row, item_id in zip(missing, self._search.ids(missing), strict=True):
            id_ = item_id.encode()
            # `Recommendations.results`, its length; `item_id`, its length; `score`, whose four bytes follow.
            field = b"".join((b"\x0a", varint(len(id_)), id_, b"\x15"))
            length = varint(len(field) + 4 + len(_RESULT_END))
            kept[row] = b"".join((_RESULT_END, b"\x0a", length, field))
        return [kept[row] for row in rows]
