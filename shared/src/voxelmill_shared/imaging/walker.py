"""A small reader of data elements for the common case: one plain frame, little endian, nothing odd about it.

It keeps the few elements that a volume needs and walks past everything else without looking, ten times as fast as a
full parse. Whatever is unusual makes it answer None, and pydicom is asked: it never guesses (PS3.5 7.1, PS3.10 7.1).

Ingest has a reader of its own (`elements.py` there), which asks another question: what is wrong with an object of which
only the first bytes have come? So that one reads on where the next range begins, keeps every element and names each
fault. This one has the whole file, keeps two dozen elements, and of a fault it only says that there is one.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_LONG = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"},
)  # fmt: skip
"""The value representations with four bytes of length (PS3.5 Table 7.1-1)."""
_SHORT = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
     b"ST", b"TM", b"UI", b"UL", b"US"},
)  # fmt: skip
_UNDEFINED = 0xFFFFFFFF
_IMPLICIT = b"1.2.840.10008.1.2"
_UNREAD = frozenset({b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.1.98"})
"""Transfer syntaxes that are left to pydicom: big endian and deflated data sets, and one that is encapsulated raw."""

_explicit = struct.Struct("<HH2sH").unpack_from
_implicit = struct.Struct("<HHI").unpack_from
_long = struct.Struct("<I").unpack_from

PIXEL_DATA = 0x7FE00010

WANTED: dict[int, tuple[str, frozenset[bytes]]] = {
    tag: (keyword, frozenset(vr.encode() for vr in representations.split("/")))
    for tag, keyword, representations in (
        (0x00080008, "ImageType", "CS"),
        (0x00080016, "SOPClassUID", "UI"),
        (0x00080018, "SOPInstanceUID", "UI"),
        (0x00080060, "Modality", "CS"),
        (0x00100020, "PatientID", "LO"),
        (0x00180060, "KVP", "DS"),
        (0x00180081, "EchoTime", "DS"),
        (0x00181210, "ConvolutionKernel", "SH"),
        (0x00189087, "DiffusionBValue", "FD"),
        (0x0020000D, "StudyInstanceUID", "UI"),
        (0x0020000E, "SeriesInstanceUID", "UI"),
        (0x00200032, "ImagePositionPatient", "DS"),
        (0x00200037, "ImageOrientationPatient", "DS"),
        (0x00200052, "FrameOfReferenceUID", "UI"),
        (0x00200100, "TemporalPositionIdentifier", "IS"),
        (0x00280002, "SamplesPerPixel", "US"),
        (0x00280004, "PhotometricInterpretation", "CS"),
        (0x00280008, "NumberOfFrames", "IS"),
        (0x00280010, "Rows", "US"),
        (0x00280011, "Columns", "US"),
        (0x00280030, "PixelSpacing", "DS"),
        (0x00280100, "BitsAllocated", "US"),
        (0x00280101, "BitsStored", "US"),
        (0x00280102, "HighBit", "US"),
        (0x00280103, "PixelRepresentation", "US"),
        (0x00280120, "PixelPaddingValue", "US/SS"),
        (0x00280121, "PixelPaddingRangeLimit", "US/SS"),
        (0x00281052, "RescaleIntercept", "DS"),
        (0x00281053, "RescaleSlope", "DS"),
        (0x00281054, "RescaleType", "LO"),
    )
}
"""The elements that are kept, with the value representations that they may have."""

KEYWORDS = frozenset(keyword for keyword, _ in WANTED.values())
DOUBLES = frozenset({"DiffusionBValue"})
"""Those of them whose bytes are a float64; the other numbers are text or of two bytes."""

_FOREIGN = frozenset({0x00283000, 0x52009229, 0x52009230, 0x7FE00008, 0x7FE00009})
"""What makes an image more than this reader knows: a modality table, functional groups, pixels of floats."""


class Walked(NamedTuple):
    """What the walk found: the values as bytes, by keyword, and where the pixel data's value begins."""

    transfer_syntax: bytes
    elements: dict[str, bytes]
    offset: int
    length: int
    """Of the pixel data; `0xFFFFFFFF` where they are encapsulated."""


def walk(data: bytes) -> Walked | None:
    """Walk over a file's elements up to its pixel data.

    Parameters
    ----------
    data
        The file, or the beginning of it. Nothing is read beyond the head of the pixel data element.

    Returns
    -------
    Walked or None
        None where anything is unusual, or where `data` ends before the pixel data.
    """
    if data[128:132] != b"DICM" or data[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        return None
    try:
        return _walk(data)
    except (struct.error, RecursionError):  # the end of the bytes, or sequences in sequences without end
        return None


def _walk(data: bytes) -> Walked | None:  # noqa: C901, PLR0911, PLR0912 - a call for each element would cost as much as the walk
    place = 144 + _long(data, 140)[0]
    syntax = _transfer_syntax(data, place)
    if syntax is None or syntax in _UNREAD:
        return None
    elements: dict[str, bytes] = {}
    explicit = syntax != _IMPLICIT
    if not explicit and data[place + 4 : place + 6] in _SHORT:
        return None  # it says implicit and is explicit
    last = 0
    while True:
        if explicit:
            group, element, representation, length = _explicit(data, place)
            value = place + 8
            if representation not in _SHORT:
                if representation not in _LONG:
                    return None
                (length,) = _long(data, value)
                value += 4
        else:
            group, element, length = _implicit(data, place)
            representation = b""
            value = place + 8
        tag = group << 16 | element
        if tag <= last or group < 8:
            return None  # out of order, or twice
        last = tag
        if tag >= PIXEL_DATA:
            usual = tag == PIXEL_DATA and representation in {b"OW", b"OB", b""}
            return Walked(syntax, elements, value, length) if usual else None
        if length == _UNDEFINED:
            if representation not in {b"SQ", b""}:
                return None
            end = _after_sequence(data, value, explicit=explicit)
            if end is None or tag in _FOREIGN:
                return None
            place = end
            continue
        place = value + length
        wanted = WANTED.get(tag)
        if wanted is not None:
            if explicit and representation not in wanted[1]:
                return None
            elements[wanted[0]] = data[value:place]
        elif tag in _FOREIGN:
            return None


def _transfer_syntax(data: bytes, end: int) -> bytes | None:
    place, found = 144, None
    while place < end:
        group, element, representation, length = _explicit(data, place)
        value = place + 8
        if representation not in _SHORT:
            (length,) = _long(data, value)
            value += 4
        if group != 2:
            return None
        place = value + length
        if element == 0x10:
            found = data[value:place].rstrip(b"\x00 ")
    return found if place == end else None


def _after_sequence(data: bytes, place: int, *, explicit: bool) -> int | None:
    """Return the place after a sequence of undefined length whose value begins at `place` (PS3.5 7.5)."""
    while True:
        group, element, length = _implicit(data, place)
        place += 8
        if group != 0xFFFE:
            return None
        if element == 0xE0DD:
            return place
        if element != 0xE000:
            return None
        if length != _UNDEFINED:
            place += length
            continue
        end = _after_item(data, place, explicit=explicit)
        if end is None:
            return None
        place = end


def _after_item(data: bytes, place: int, *, explicit: bool) -> int | None:
    while True:
        group, element, length = _implicit(data, place)
        if group == 0xFFFE:
            return place + 8 if element == 0xE00D else None
        representation = b"SQ"
        value = place + 8
        if explicit:
            representation, length = data[place + 4 : place + 6], length >> 16
            if representation in _LONG:
                (length,) = _long(data, value)
                value += 4
            elif representation not in _SHORT:
                return None
        if length != _UNDEFINED:
            place = value + length
            continue
        end = _after_sequence(data, value, explicit=explicit) if representation == b"SQ" else None
        if end is None:
            return None
        place = end
