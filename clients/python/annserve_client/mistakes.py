"""What is wrong with a value that cannot be sent: its field, and what it should be.

Looked for only once the value was refused, so that what can be sent costs nothing more; protobuf's own errors name
neither field nor value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from enum import Enum
from functools import wraps
from numbers import Integral, Real
from reprlib import repr as shortened
from types import NoneType, UnionType
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

Sent = TypeVar("Sent")
Message = TypeVar("Message")

# What protobuf takes beside the type that a field is declared with: numpy's numbers, arrays and generators too.
_TAKEN: Final[Mapping[Any, Any]] = {int: Integral, float: Real, Sequence: Iterable, tuple: Iterable}


def explaining(convert: Callable[[Sent], Message]) -> Callable[[Sent], Message]:
    """Have the TypeError of ``convert``, which takes a dataclass, say which field is of the wrong type."""

    @wraps(convert)
    def converted(value: Sent) -> Message:
        try:
            return convert(value)
        except (AttributeError, TypeError):
            try:
                mistake = next(_mistakes_of(value), None)
            except Exception:  # noqa: BLE001 - of a caller's own class, say, whose annotations mean nothing here
                mistake = None
            if mistake is None:
                raise
            raise TypeError(mistake) from None

    return converted


def ids_of(ids: Sequence[str]) -> Sequence[str]:
    """Return ``ids``.

    Raises:
        TypeError: they are a single string, which is a sequence of strings too: its characters would be sent.
    """
    if isinstance(ids, str):
        raise TypeError(next(_mistakes("ids", ids, Sequence[str])))
    return ids


def _mistakes_of(value: Any, path: str = "") -> Iterator[str]:
    if is_dataclass(value):
        for name, hint in get_type_hints(type(value)).items():
            yield from _mistakes(path + name, getattr(value, name), hint)


def _mistakes(name: str, value: Any, hint: Any) -> Iterator[str]:
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    single = any(_is_single_string(kind, value) for kind in kinds)
    kind = None if single else next((kind for kind in kinds if isinstance(value, _taken(kind))), None)
    if kind is None:
        wanted = " or ".join(_word(kind) for kind in kinds if kind is not NoneType)
        got = "the single string" if single else type(value).__name__
        yield f"{name} must be {wanted}, got {got} {shortened(value)}"
    elif get_origin(kind) is Mapping:
        for key, held in value.items():
            yield from _mistakes(f"{name}[{key!r}]", held, get_args(kind)[1])
    elif get_origin(kind) is not None:
        for place, held in enumerate(value):
            yield from _mistakes(f"{name}[{place}]", held, get_args(kind)[0])
    else:
        yield from _mistakes_of(value, f"{name}.")


def _taken(kind: Any) -> Any:
    plain = get_origin(kind) or kind
    # An enum's member may be given by its value.
    return str if issubclass(plain, Enum) else _TAKEN.get(plain, plain)


def _is_single_string(kind: Any, value: Any) -> bool:
    return isinstance(value, str) and get_origin(kind) is Sequence


def _word(kind: Any) -> str:
    if (plain := get_origin(kind)) is None:
        return f"{'an' if kind.__name__[0] in 'aeiouAEIOU' else 'a'} {kind.__name__}"
    held = "values" if isinstance(get_args(kind)[-1], UnionType) else get_args(kind)[-1].__name__
    return f"a mapping of names to {held}" if plain is Mapping else f"a sequence of {held}"
