"""The colours of PALETTE COLOR images and of supplemental palettes (PS3.3 C.7.6.3.1.5, C.7.6.19, C.7.9.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from voxelmill_shared.imaging.transform import LookUpTable

if TYPE_CHECKING:
    from pydicom import Dataset

_COLOURS = ("Red", "Green", "Blue")
_MOST_ENTRIES = 1 << 16


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours that stored values stand for (PS3.3 C.7.6.3.1.5).

    Attributes
    ----------
    red, green, blue
        One table for each colour; the first input is in the sign of the stored values.
    supplemental
        Whether values below the first input are grey levels of their own (PS3.3 C.7.6.19).
    """

    red: LookUpTable
    green: LookUpTable
    blue: LookUpTable
    supplemental: bool = False


def read_palette(header: Dataset, *, signed: bool, little_endian: bool, supplemental: bool = False) -> Palette:
    """Read the palette of an image, whole or segmented.

    Parameters
    ----------
    header
        The data set of the image.
    signed
        Whether its stored values have a sign: writers give the first input in either representation.
    little_endian
        The byte order of the data set.
    supplemental
        Whether values below the first input are grey.

    Raises
    ------
    IndexError, TypeError, ValueError
        If there is no palette, or it makes no sense.
    """
    tables = []
    for colour in _COLOURS:
        count, first, bits = (int(value) for value in _value(header, f"{colour}PaletteColorLookupTableDescriptor"))
        name = f"{colour}PaletteColorLookupTableData"
        whole = name in header
        data = _value(header, name if whole else f"Segmented{name}")
        if isinstance(data, bytes) and bits > 8 and not little_endian:  # OW: the reader leaves the order as it is
            data = np.frombuffer(data, ">u2").astype("<u2").tobytes()
        if not whole:
            data = expand_segments(data, bits)
        table = LookUpTable.from_data((count, first, bits), data)
        tables.append(replace(table, first=in_sign(table.first, signed=signed)))
    red, green, blue = tables
    return Palette(red, green, blue, supplemental)


def _value(header: Dataset, name: str) -> Any:
    value = header.get(name)
    if value is None:
        raise ValueError(f"there is no {name}")
    return value


def in_sign(first: int, *, signed: bool) -> int:
    """Return a table's first input in the sign of the values that are looked up (PS3.3 C.11.1.1).

    The element is US or SS as the values are, but its VR is often the other one: 64,512 then stands for -1024.
    """
    low = first & 0xFFFF
    return low - 0x10000 if signed and low > 0x7FFF else low


def expand_segments(data: bytes, bits: int) -> list[int]:
    """Expand a segmented palette: discrete, linear and indirect segments (PS3.3 C.7.9.2).

    Parameters
    ----------
    data
        The segments, little endian.
    bits
        The bits of an entry; opcodes and lengths have the same size.

    Raises
    ------
    ValueError, IndexError
        If the segments contradict the Standard.
    """
    size = 1 if bits <= 8 else 2
    words = np.frombuffer(data, np.uint8 if size == 1 else "<u2", len(data) // size).tolist()
    values: list[int] = []
    place = 0
    while place + 2 < len(words):  # the shortest segment has three words; less is padding
        if words[place] == 2:
            offset = _number(words[place + 2 : place + 2 + 4 // size], size) // size
            for _ in range(words[place + 1]):
                offset = _expand_segment(words, offset, values)
            place += 2 + 4 // size
        else:
            place = _expand_segment(words, place, values)
    return values


def _number(words: list[int], size: int) -> int:
    """Return the 32 bits of an offset, which is in bytes from the first segment."""
    return int.from_bytes(b"".join(word.to_bytes(size, "little") for word in words), "little")


def _expand_segment(words: list[int], place: int, values: list[int]) -> int:
    """Expand a discrete or linear segment; an indirect one may not point to another (C.7.9.2.3), so nothing loops."""
    kind, length = words[place], words[place + 1]
    if not length:  # nothing would ever end what points to it 65,535 times, and that again and again
        raise ValueError("a palette segment without entries")
    if kind == 0:
        values.extend(words[place + 2 : place + 2 + length])
        place += 2 + length
    elif kind == 1:
        start, end = values[-1], words[place + 2]
        values.extend(start + round((end - start) * (step + 1) / length) for step in range(length))
        place += 3
    else:
        raise ValueError(f"a palette segment of the kind {kind} where a discrete or linear one must stand")
    if len(values) > _MOST_ENTRIES:
        raise ValueError(f"the segments of a palette expand to more than {_MOST_ENTRIES:,} entries")
    return place
