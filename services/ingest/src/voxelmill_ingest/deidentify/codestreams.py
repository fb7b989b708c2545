"""What compressed pixels carry beside the pixels: comments and application data of JPEG and JPEG 2000.

Encoders write what they like there, Exif and names of patients too. It is blanked where it lies: no decoder reads it,
and offsets stay right. Markers after ISO/IEC 10918-1 B.1, 14495-1 C.1 and 15444-1 A.2.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_ITEM: Final = b"\xfe\xff\x00\xe0"
_JPEG: Final = b"\xff\xd8"
_JPEG_2000: Final = b"\xff\x4f\xff\x51"
_END: Final = b"\xff\xd9"
_START: Final = re.compile(rb"\xff\xd8\xff|\xff\x4f\xff\x51|\Z")
_MARKER: Final = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]|\Z")
"""The next marker after entropy-coded data, in which 0xFF is followed by a stuffed bit, a restart or more 0xFF."""
_SCAN: Final = 0xDA
_COMMENTS: Final = frozenset({0xFE, *range(0xE1, 0xE8), *range(0xE9, 0xEE), 0xEF})
"""COM and APPn but APP0 (JFIF), APP8 (colour transform of JPEG-LS) and APP14 (Adobe's), which decoders read."""
_JFIF: Final = b"JFIF\0"
_TILE_PART, _DATA, _COMMENT_2000 = 0x90, 0x93, 0x64


def blank_comments(encapsulated: bytes) -> bytes:
    """Blank what is no image in encapsulated Pixel Data (PS3.5 A.4), in as many bytes.

    Parameters
    ----------
    encapsulated
        The element's value: items, the first of them the offset table.

    Raises
    ------
    ValueError
        If it is not made of items, so that nobody can say what it holds.
    """
    fragments = list(_fragments(encapsulated))[1:]
    stream = bytearray(b"".join(encapsulated[start:end] for start, end in fragments))
    if not stream.startswith((_JPEG, _JPEG_2000)):
        return encapsulated  # run lengths, or a codec that has no decoder here
    _blank(stream)
    cleaned, taken = bytearray(encapsulated), 0
    for start, end in fragments:
        cleaned[start:end] = stream[taken : taken + end - start]
        taken += end - start
    return bytes(cleaned)


def _fragments(encapsulated: bytes) -> Iterator[tuple[int, int]]:
    place = 0
    while place + 8 <= len(encapsulated) and encapsulated[place : place + 4] == _ITEM:
        (length,) = struct.unpack_from("<I", encapsulated, place + 4)
        if place + 8 + length > len(encapsulated):
            raise ValueError("a fragment is longer than the element")
        yield place + 8, place + 8 + length
        place += 8 + length
    if any(encapsulated[place:].removeprefix(b"\xfe\xff\xdd\xe0").strip(b"\0")):
        raise ValueError("something lies between the fragments")


def _blank(stream: bytearray) -> None:
    """Walk through one frame after another, and blank their comments and what lies between them."""
    place = 0
    while place < len(stream):
        blank = _blank_jpeg_2000 if stream.startswith(_JPEG_2000, place) else _blank_jpeg
        end = blank(stream, place)
        place = next(_START.finditer(stream, end)).start()
        stream[end:place] = bytes(place - end)


def _blank_jpeg(stream: bytearray, place: int) -> int:
    """Blank one image's comments; return where it ends."""
    place += 2
    while place + 4 <= len(stream):
        marker = stream[place + 1]
        if marker == _END[1]:
            return place + 2
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        (length,) = struct.unpack_from(">H", stream, place + 2)
        end = min(place + 2 + length, len(stream))
        if marker in _COMMENTS or (marker == 0xE0 and not stream.startswith(_JFIF, place + 4)):
            stream[place + 4 : end] = bytes(max(end - place - 4, 0))
        place = max(end, place + 2)
        if marker == _SCAN:
            place = next(_MARKER.finditer(stream, place)).start()
    return min(place + 2, len(stream)) if stream.startswith(_END, place) else len(stream)


def _blank_jpeg_2000(stream: bytearray, place: int) -> int:
    """Blank one codestream's comments; return where it ends."""
    place, tile_end = place + 2, 0
    while place + 4 <= len(stream) and stream[place] == 0xFF:
        marker = stream[place + 1]
        if marker == _END[1]:
            return place + 2
        if marker == _DATA:
            if not tile_end:  # the last tile-part, of a length that is not said: up to the codestream's end
                found = stream.find(_END, place)
                return len(stream) if found < 0 else found + 2
            place, tile_end = tile_end, 0
            continue
        (length,) = struct.unpack_from(">H", stream, place + 2)
        end = min(place + 2 + length, len(stream))
        if marker == _TILE_PART and place + 10 <= len(stream):
            (tile_length,) = struct.unpack_from(">I", stream, place + 6)
            tile_end = place + tile_length if tile_length else 0
        if marker == _COMMENT_2000:
            stream[place + 6 : end] = b" " * max(end - place - 6, 0)  # Rcom says whether it is text; blanks are both
        place = max(end, place + 2)
    return min(place + 2, len(stream)) if stream.startswith(_END, place) else len(stream)
