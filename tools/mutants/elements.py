"""Where the elements of a DICOM file lie, so that they can be made wrong one by one. Little endian alone."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

UNDEFINED: Final = 0xFFFFFFFF
PIXELS: Final = 0x7FE00010
LONG: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
SHORT: Final = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_SYNTAX: Final = 0x00020010
_OTHER_ORDER: Final = frozenset({b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99"})


@dataclass(frozen=True, slots=True)
class Field:
    """An element: its tag and VR (empty if implicit), its first byte, its value's, its length, how deep it lies."""

    tag: int
    vr: bytes
    start: int
    value: int
    length: int
    depth: int

    @property
    def end(self) -> int:
        """Where the value ends; where it begins if its length is undefined."""
        return self.value if self.length == UNDEFINED else self.value + self.length

    @property
    def length_at(self) -> tuple[int, str]:
        """Where the length stands, and how it is packed."""
        return (self.value - 2, "<H") if self.vr in SHORT else (self.value - 4, "<L")


def fields(data: bytes) -> list[Field]:
    """Find the elements up to the pixels, those within sequences too; as many as can be followed."""
    found: list[Field] = []
    if data[128:132] != b"DICM":
        return found
    place, depth, explicit = 132, 0, True
    try:
        while place + 8 <= len(data):
            group, element = struct.unpack_from("<HH", data, place)
            tag = group << 16 | element
            if group == 0xFFFE:
                (length,) = struct.unpack_from("<L", data, place + 4)
                depth += {0xE00D: -1, 0xE0DD: -1}.get(element, 1 if length == UNDEFINED else 0)
                place += 8
                continue
            if group != 2 and found and found[-1].tag >> 16 == 2:
                syntax = _syntax(data, found)
                if syntax in _OTHER_ORDER:
                    break
                explicit = syntax != b"1.2.840.10008.1.2"
            one = _field(data, place, tag, depth, explicit=explicit or group == 2)
            if one is None:
                break
            found.append(one)
            if tag == PIXELS and not depth:
                break
            depth += one.length == UNDEFINED
            place = one.end
            if place > len(data):
                break
    except struct.error:
        pass  # the file ends here: what was found is all that there is
    return found


def _syntax(data: bytes, found: list[Field]) -> bytes:
    return next((data[one.value : one.end].rstrip(b"\0 ") for one in found if one.tag == _SYNTAX), b"")


def _field(data: bytes, place: int, tag: int, depth: int, *, explicit: bool) -> Field | None:
    if not explicit:
        return Field(tag, b"", place, place + 8, struct.unpack_from("<L", data, place + 4)[0], depth)
    vr = data[place + 4 : place + 6]
    if vr in SHORT:
        return Field(tag, vr, place, place + 8, struct.unpack_from("<H", data, place + 6)[0], depth)
    if vr in LONG:
        return Field(tag, vr, place, place + 12, struct.unpack_from("<L", data, place + 8)[0], depth)
    return None


def is_encapsulated(found: list[Field]) -> bool:
    """Whether the pixels are there and compressed."""
    return bool(found) and found[-1].tag == PIXELS and found[-1].length == UNDEFINED


def encoded(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """Encode an element, with a length that may be a lie; implicit if it has no VR."""
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    length = len(value) if length is None else length
    if not vr:
        return head + struct.pack("<L", length & UNDEFINED) + value
    if vr in LONG:
        return head + vr + struct.pack("<HL", 0, length & UNDEFINED) + value
    return head + vr + struct.pack("<H", length & 0xFFFF) + value


def replaced(data: bytes, one: Field, value: bytes) -> bytes:
    """Give an element another value, and the length that this has."""
    value += b" " * (len(value) % 2)
    return data[: one.start] + encoded(one.tag, one.vr, value) + data[one.end :]


def with_value(data: bytes, found: list[Field], tag: int, vr: bytes, value: bytes) -> bytes:
    """Give the top level an element, in place of the one that it may have."""
    value += b" " * (len(value) % 2)
    top = [one for one in found if not one.depth]
    for one in top:
        if one.tag == tag:
            return replaced(data, one, value)
    explicit = bool(top) and bool(top[-1].vr)
    place = next((one.start for one in top if one.tag > tag), len(data))
    return data[:place] + encoded(tag, vr if explicit else b"", value) + data[place:]
