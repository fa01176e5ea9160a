"""A thousand damaged files: each is refused with a place, or loaded; none takes long, none takes anybody down."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from annserve import demo
from annserve.catalog.config import CatalogConfig
from annserve.domain.placements import PlacementText
from annserve.placements.file import PlacementFile
from annserve.placements.loading import compiled
from annserve.placements.variables import HOUR, USER_CONTEXT

EXAMPLES = sorted(demo.PLACEMENTS.glob("*.yaml"))
SCHEMA = CatalogConfig.read(demo.CATALOG).declared()
FILES = 1_000
SECONDS_MAX = 2.0

VALUES = [
    "null",
    "true",
    "-1",
    "0",
    "1e308",
    "1e999",
    "9" * 400,
    ".nan",
    "[]",
    "{}",
    "''",
    "'x'",
    "[[[[]]]]",
    "*a",
    "&a b",
    "!!set {a}",
    "!!python/object/apply:os.system ['true']",
    "{<<: {a: 1}}",
    "|",
    ">-",
    "'\\x00'",
    '"\\ud800"',
    '"\\U0010ffff"',
    "2024-01-01",
    "item.price < 5",
    "'" + "(" * 900 + "'",
    "'" + "!" * 900 + "true'",
    "item.name.matches('(a+)+$')",
    "1 / 0 > 0",
    "...",
    "---",
    "? x",
]
KEYS = [
    *PlacementFile.model_fields,
    "when",
    "weight",
    "else",
    "suppress",
    "name",
    "share",
    "",
    "<<",
    "a" * 300,
    "\u202e",
    "on",
    "~",
]
BYTES = [
    b"\x00",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\t",
    b"\r",
    b"\xef\xbb\xbf",
    b":",
    b"-",
    b"{",
    b"]",
    b"'",
    b'"',
    b"%",
    b"@",
    b"`",
    b"\\",
]


def change_bytes(chance: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(changed))
        match chance.randrange(4):
            case 0:
                changed[place] = chance.randrange(256)
            case 1:
                changed[place:place] = chance.choice(BYTES)
            case 2:
                del changed[place : place + chance.randint(1, 20)]
            case _:
                changed[place:place] = changed[place : place + chance.randint(1, 40)]
    return bytes(changed) or b" "


def change_key(chance: random.Random, content: bytes) -> bytes:
    lines = content.split(b"\n")
    place = chance.choice([place for place, line in enumerate(lines) if b":" in line])
    key, _, rest = lines[place].partition(b":")
    indent = key[: len(key) - len(key.lstrip(b" -"))]
    lines[place] = indent + chance.choice(KEYS).encode() + b":" + rest
    return b"\n".join(lines)


def change_value(chance: random.Random, content: bytes) -> bytes:
    lines = content.split(b"\n")
    place = chance.choice([place for place, line in enumerate(lines) if b":" in line])
    lines[place] = lines[place].partition(b":")[0] + b": " + chance.choice(VALUES).encode(errors="surrogatepass")
    return b"\n".join(lines)


def change_indentation(chance: random.Random, content: bytes) -> bytes:
    lines = content.split(b"\n")
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(lines))
        lines[place] = b" " * chance.randint(0, 8) + lines[place].lstrip()
    return b"\n".join(lines)


def change_order(chance: random.Random, content: bytes) -> bytes:
    lines = content.split(b"\n")
    match chance.randrange(3):
        case 0:
            chance.shuffle(lines)
        case 1:
            lines = lines[: chance.randrange(len(lines))]
        case _:
            lines += chance.choices(lines, k=chance.randint(1, 400))
    return b"\n".join(lines)


MUTATIONS: list[Callable[[random.Random, bytes], bytes]] = [
    change_bytes, change_key, change_value, change_indentation, change_order,
]  # fmt: skip


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_mutated_files_are_refused_with_a_place_or_loaded(mutation: Callable[[random.Random, bytes], bytes]) -> None:
    chance = random.Random(mutation.__name__)
    refused = 0
    for _ in range(FILES // len(MUTATIONS)):
        path = chance.choice(EXAMPLES)
        content = mutation(chance, path.read_bytes())
        for _ in range(chance.choice([0, 0, 1, 3])):
            content = chance.choice(MUTATIONS)(chance, content) if content.count(b":") else content
        source = PlacementText(name=path.stem, origin=path.name, text=content.decode("utf-8", errors="surrogateescape"))

        began = time.perf_counter()
        placements, problems = compiled([source], SCHEMA)
        seconds = time.perf_counter() - began

        assert seconds < SECONDS_MAX, content
        assert bool(problems) != bool(placements), content
        refused += bool(problems)
        lines = source.text.splitlines()
        for problem in problems:
            assert 1 <= problem.place.line <= len(lines) + 1, content
            assert problem.place.column >= 1
            assert problem.text
            str(problem).encode()
        for made in placements.values():
            for recipe in made.recipes.values():
                for row in recipe.policy:
                    if row.when is not None:
                        row.when.evaluate({HOUR: 7.0, USER_CONTEXT: 0.5})

    assert 0 < refused < FILES // len(MUTATIONS)


@pytest.mark.parametrize(
    "content",
    [
        "[" * 60_000,
        "{a: " * 15_000,
        "- " * 30_000,
        "? " * 30_000,
        "a:\n " * 10_000,
        "a: '" + "\\" * 60_000,
        "#" * 60_000,
        "a" * 60_000,
        "\n".join(f"k{number}: {number}" for number in range(6_000)),
        "mode: similar\nwhere: {price: [" + "1," * 30_000 + "]}",
        "mode: similar\npins: [" + "{rank: 1, item: a}," * 3_000 + "]",
        "a: &a [x]\nb: [" + "*a," * 10_000 + "]",
    ],
    ids=range(12),
)
def test_file_made_to_cost_much_is_refused_soon(content: str) -> None:
    began = time.perf_counter()
    problems = compiled([PlacementText(name="home", origin="home.yaml", text=content)], SCHEMA)[1]

    assert problems
    assert time.perf_counter() - began < 10
