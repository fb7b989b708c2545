"""How encapsulated pixels begin: the Basic Offset Table and the first fragment (PS3.5 A.4).

That is read at header time, mostly from bytes that are in hand already. Where the other fragments lie, and what is in
them, is found when they are decoded.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from voxelmill_ingest.elements import ITEM, SEQUENCE_END, UNDEFINED, name

if TYPE_CHECKING:
    from voxelmill_ingest.ranges import Reading, Window

_LONGEST_TABLE: Final = 64 << 10
"""Bytes of an offset table that is read: 16,384 frames. Of a longer one only the length is looked at."""


@dataclass(frozen=True, slots=True)
class Fragments:
    """The beginning of encapsulated pixels.

    Attributes
    ----------
    entries
        How many offsets the Basic Offset Table holds; 0 where it is empty.
    offsets
        The offsets, in bytes from the first fragment's item; empty where the table is empty or too long to be read.
    begin
        Where the first fragment's item lies, in bytes of the object.
    first_length
        The first fragment's length in bytes.
    problem
        What is wrong with the items, in words; empty if nothing is.
    ends_early
        Whether the object ends inside of what was read.
    """

    entries: int = 0
    offsets: tuple[int, ...] = ()
    begin: int = 0
    first_length: int = 0
    problem: str = ""
    ends_early: bool = False


def read_fragments(window: Window, offset: int) -> Reading[Fragments]:
    """Look at the items that encapsulated pixels begin with; `offset` is where the pixel element's value begins."""
    window.position = offset
    if not (yield from window.need(8)):
        return Fragments(ends_early=True)
    tag, length = _item(window)
    if tag != ITEM or length == UNDEFINED:
        return Fragments(problem=f"the encapsulated pixels begin with {name(tag)} and not with a Basic Offset Table")
    if length % 4:
        return Fragments(problem=f"the Basic Offset Table has {length} bytes, no whole number of offsets")
    window.position += 8
    offsets: tuple[int, ...] = ()
    if 0 < length <= _LONGEST_TABLE:
        if not (yield from window.need(length)):
            return Fragments(ends_early=True)
        offsets = struct.unpack_from(f"<{length // 4}L", window.data, window.position - window.start)
    window.position += length
    begin = window.position
    if not (yield from window.need(8)):
        return Fragments(ends_early=True)
    tag, first_length = _item(window)
    problem = ""
    if tag == SEQUENCE_END:
        problem = "the encapsulated pixels hold no fragment"
    elif tag != ITEM or first_length == UNDEFINED:
        problem = f"{name(tag)} stands where the first fragment must begin, at byte {begin}"
    return Fragments(length // 4, offsets, begin, first_length, problem)


def offset_table_problem(fragments: Fragments, frames: int) -> str:
    """Return how the Basic Offset Table contradicts the object, or an empty string."""
    entries, offsets = fragments.entries, fragments.offsets
    if entries and entries != frames:
        return f"the Basic Offset Table has {entries} offsets for {frames} frames"
    if offsets and offsets[0]:
        return f"the Basic Offset Table begins with {offsets[0]} and not with 0"
    if any(later <= earlier for earlier, later in itertools.pairwise(offsets)):
        return "the offsets of the Basic Offset Table do not ascend"
    if len(offsets) > 1 and offsets[1] < 8 + fragments.first_length:
        return "the second offset of the Basic Offset Table lies in the first fragment"
    return ""


def _item(window: Window) -> tuple[int, int]:
    group, element, length = struct.unpack_from("<HHL", window.data, window.position - window.start)
    return group << 16 | element, length
