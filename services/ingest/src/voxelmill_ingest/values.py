"""The values of a header's elements as text and numbers, in whatever VR they were written (PS3.5 6.2)."""

from __future__ import annotations

import math
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypeVar

from voxelmill_ingest.elements import Elements
from voxelmill_ingest.tags import WANTED

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

P = ParamSpec("P")
R = TypeVar("R")

_BINARY: Final = {
    b"US": "H",
    b"SS": "h",
    b"UL": "L",
    b"SL": "l",
    b"UV": "Q",
    b"SV": "q",
    b"FL": "f",
    b"FD": "d",
}


def texts(found: Elements, tag: int) -> tuple[str, ...]:
    """Return the values of an element as text, without padding; one empty text where there are none."""
    value = found.values.get(tag, b"")
    code = _BINARY.get(_vr(found, tag)) if tag in found.vrs else None
    if code is None:
        return _split(value)
    return tuple(map(str, _unpack(found, value, code))) or ("",)


def text(found: Elements, tag: int) -> str:
    """Return the first value of an element as text, empty where there is none."""
    value = found.values.get(tag)
    if not value:
        return ""
    return _split(value)[0] if tag not in found.vrs else texts(found, tag)[0]


# The values of a series' objects are mostly the same, so that to decode each only once saves half of the time. What
# names people is never asked for here.
@lru_cache(maxsize=2048)
def _split(value: bytes) -> tuple[str, ...]:
    return tuple([part.strip(" \0") for part in value.decode("latin-1").split("\\")])


@lru_cache(maxsize=2048)
def _numbers(parts: tuple[str, ...]) -> tuple[float, ...] | None:
    try:
        values = tuple([float(part) for part in parts if "_" not in part])  # which float takes between digits
    except ValueError:
        return None
    return values if len(values) == len(parts) and all(map(math.isfinite, values)) else None


def number(found: Elements, tag: int) -> int | None:
    """Return the first value of an element as a whole number, none where it is absent or no such number."""
    if tag not in found.vrs:
        value = found.values.get(tag, b"")
        if len(value) < 2:
            return None
        return int.from_bytes(value[:2], "big" if found.big_endian else "little")
    first = texts(found, tag)[0]
    return int(first) if first.isascii() and first.removeprefix("-").isdigit() else None


def decimals(found: Elements, tag: int) -> tuple[float, ...] | None:
    """Return the values of an element as numbers: empty where it is absent, none if one is no finite number."""
    parts = texts(found, tag)
    return () if parts == ("",) else _numbers(parts)


def is_present(found: Elements, tag: int) -> bool:
    """Whether an element has a value, read or stepped over."""
    return bool(found.values.get(tag)) or tag in found.unread


def asked_once(
    *wanted: int,
) -> Callable[[Callable[Concatenate[Elements, P], R]], Callable[Concatenate[Elements, P], R]]:
    """Keep what a rule says of some values, for the objects of a series share them and there are hundreds.

    The rule sees those values alone, so it cannot come to depend on others; what it returns must not change. Its
    arguments are given by position. An object with odd VRs or values that were stepped over is judged by itself.

    Parameters
    ----------
    wanted
        The tags of the values. None that tells who the patient is: they are kept.
    """

    def decorate(rule: Callable[Concatenate[Elements, P], R]) -> Callable[Concatenate[Elements, P], R]:
        @lru_cache(maxsize=64)
        def kept(values: tuple[bytes | None, ...], big_endian: bool, *rest: Hashable) -> R:
            present = {tag: value for tag, value in zip(wanted, values, strict=True) if value is not None}
            alone = Elements(big_endian=big_endian, values=present)
            return rule(alone, *rest)  # type: ignore[call-arg, arg-type] # the rule's own arguments, handed through

        def asked(found: Elements, /, *rest: P.args, **named: P.kwargs) -> R:
            if found.vrs or found.unread or named:
                return rule(found, *rest, **named)
            return kept(tuple(map(found.values.get, wanted)), found.big_endian, *rest)

        return asked

    return decorate


def _vr(found: Elements, tag: int) -> bytes:
    """Return the VR that a value was written in. Where it says nothing of use it is the one that the element has."""
    vr = found.vrs.get(tag, b"")
    return WANTED.vrs[tag] if vr in {b"", b"UN", b"OB", b"OW"} else vr


def _unpack(found: Elements, value: bytes, code: str) -> tuple[float, ...]:
    size = struct.calcsize(f"<{code}")
    count = len(value) // size
    order = ">" if found.big_endian else "<"
    return struct.unpack_from(f"{order}{count}{code}", value)
