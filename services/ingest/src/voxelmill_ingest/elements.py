"""Walking over the data elements of a DICOM object without decoding them (PS3.5 section 7).

Only the values that ingest asks for are kept; everything else, pixels above all, is stepped over unread. The walk
needs no recursion and trusts no length, so a hostile header costs no more than the bytes that it has.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from voxelmill_ingest.ranges import InflatedWindow, PackedEndError, Window

if TYPE_CHECKING:
    from collections.abc import Mapping

    from voxelmill_ingest.ranges import Reading

IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"
EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG: Final = "1.2.840.10008.1.2.2"
_INFLATED: Final = frozenset({DEFLATED, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
"""The transfer syntaxes whose data set is deflated: plain, JPIP and HTJ2K JPIP (PS3.5 A.5, A.7, A.11)."""

TRANSFER_SYNTAX_UID: Final = 0x0002_0010
PIXEL_DATA: Final = 0x7FE0_0010
PIXELS: Final = frozenset({0x7FE0_0008, 0x7FE0_0009, PIXEL_DATA})
"""Float, Double Float and plain Pixel Data (PS3.3 C.7.6.3, C.7.6.24, C.7.6.25)."""

ITEM: Final = 0xFFFE_E000
ITEM_END: Final = 0xFFFE_E00D
SEQUENCE_END: Final = 0xFFFE_E0DD
UNDEFINED: Final = 0xFFFF_FFFF
_SHORT_LENGTH = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG_LENGTH = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_VRS = _SHORT_LENGTH | _LONG_LENGTH
LONGEST_VALUE: Final = 4096
"""Bytes of a value that is kept."""
_MOST_ELEMENTS = 1_000_000


def _code(vr: bytes) -> int:
    """Return a VR as the integer that it is when a header's fields are unpacked together."""
    return int.from_bytes(vr, "little")


def _swapped(tag: int) -> int:
    """Return a tag as the integer that its group and element make in little endian: the element comes first."""
    return tag >> 16 | (tag & 0xFFFF) << 16


_HEADER_SIZE: Final = {_code(vr): 8 if vr in _SHORT_LENGTH else 12 for vr in _VRS}
"""Bytes of an element's header up to its value, by VR."""
_PLAIN_HEADER: Final = struct.Struct("<LHH")
"""Tag, VR and length of most elements in explicit VR little endian, as integers: cheaper to compare than bytes."""
_IMPLICIT_HEADER: Final = struct.Struct("<LL")
_TAGS: Final = {order: struct.Struct(f"{order}HH") for order in "<>"}
_SHORTS: Final = {order: struct.Struct(f"{order}H") for order in "<>"}
_LONGS: Final = {order: struct.Struct(f"{order}L") for order in "<>"}
_NOTHING: Final[Mapping[int, tuple[int, int]]] = {}


class Wanted:
    """Which elements a walk keeps: the VR that each must have, by tag."""

    def __init__(self, vrs: Mapping[int, bytes]) -> None:
        self.vrs: Final = {TRANSFER_SYNTAX_UID: b"UI", **vrs}
        self.plain: Final = {_swapped(tag): (_code(vr), tag) for tag, vr in self.vrs.items()}


class InvalidDicomError(Exception):
    """The bytes break the encoding rules, so nothing after this place can be trusted."""


@dataclass(slots=True)
class Pixels:
    """Where a pixel element's value lies. `length` is none where it is undefined: the pixels are encapsulated."""

    tag: int
    offset: int
    length: int | None


@dataclass(slots=True)
class Elements:
    """What a walk found.

    Attributes
    ----------
    transfer_syntax_uid, assumed_syntax, contradicted_syntax
        How the data set is encoded; whether that had to be told by its bytes, because nothing says it, or because they
        are not in the VR encoding that the file meta information says.
    values
        Raw value by tag, of the wanted elements at the top level.
    vrs
        VR by tag, of those values that were written in another VR than the wanted one.
    unread
        Length by tag, of wanted elements that were stepped over: values too long to be kept, and sequences of undefined
        length.
    pixels
        The pixel element, if the walk came to it.
    cut
        Why the walk ended early, in words; empty if it did not.
    """

    transfer_syntax_uid: str = ""
    assumed_syntax: bool = False
    contradicted_syntax: bool = False
    big_endian: bool = False
    deflated: bool = False
    values: dict[int, bytes] = field(default_factory=dict)
    vrs: dict[int, bytes] = field(default_factory=dict)
    unread: dict[int, int] = field(default_factory=dict)
    pixels: Pixels | None = None
    cut: str = ""


def looks_like_dicom(head: bytes) -> bool:
    """Whether the first bytes are those of a DICOM object, with its preamble (PS3.10 7.1) or without."""
    if head[128:132] == b"DICM":
        return True
    return _has_plausible_start(head, "<") or _has_plausible_start(head, ">")


def _has_plausible_start(head: bytes, order: str) -> bool:
    """Whether a data set seems to begin here: a low group, and a known VR or a short length."""
    if len(head) < 16:
        return False
    group, element, length = struct.unpack_from(f"{order}HHL", head)
    if group not in {0x0002, 0x0008}:
        return False
    if head[4:6] in _VRS:
        return True
    return order == "<" and element <= 0x0070 and 0 < length <= 256


def open_data_set(window: Window, wanted: Wanted) -> Reading[Walker]:
    """Read the file meta information (PS3.10 7.1) and return a walker that stands at the first element after it.

    Raises
    ------
    InvalidDicomError
        If the bytes break the encoding rules.
    """
    found = Elements()
    yield from window.need(min(window.size, 132 + 16))
    window.position = 132 if window.data[128:132] == b"DICM" else 0
    meta = Walker(window, found, wanted, explicit=True, order="<")
    yield from meta.run(stop_after=0x0002)
    body, explicit, order = yield from _settle_encoding(window, found)
    return Walker(body, found, wanted, explicit=explicit, order=order)


def _settle_encoding(window: Window, found: Elements) -> Reading[tuple[Window, bool, str]]:
    """Settle how the data set is encoded: as the file meta information says, unless the bytes say otherwise."""
    declared = found.values.pop(TRANSFER_SYNTAX_UID, b"").rstrip(b"\0 ").decode("latin-1")
    found.transfer_syntax_uid = declared
    if declared in _INFLATED:
        found.deflated = True
        return InflatedWindow(window), True, "<"
    order = ">" if declared == EXPLICIT_BIG else "<"
    if not (yield from window.need(8)):
        return window, declared != IMPLICIT_LITTLE, order
    first = window.data[window.position - window.start :][:8]
    explicit = first[4:6] in _VRS
    if not declared:
        # PS3.10 demands the meta information; much that is older than it has none, and can be told all the same.
        found.assumed_syntax = True
        if explicit and 0 < first[0] <= 0x08 and first[1] == 0:
            found.transfer_syntax_uid = EXPLICIT_LITTLE
        elif explicit:
            found.transfer_syntax_uid, order = EXPLICIT_BIG, ">"
        else:
            found.transfer_syntax_uid = IMPLICIT_LITTLE
    else:
        found.contradicted_syntax = explicit == (declared == IMPLICIT_LITTLE)
    found.big_endian = order == ">"
    return window, explicit, order


class Walker:
    """One pass over the elements of one data set. What it has found so far is in `found`."""

    def __init__(self, window: Window, found: Elements, wanted: Wanted, *, explicit: bool, order: str) -> None:
        self._window = window
        self.found = found
        self._wanted = wanted.vrs
        self._plain = wanted.plain
        self._explicit = explicit
        self._little = order == "<"
        self._tag = _TAGS[order]
        self._short = _SHORTS[order]
        self._long = _LONGS[order]

    def run(self, stop_after: int = 0xFFFF) -> Reading[None]:
        """Walk on until a group above `stop_after`, the pixels, or the end. May be called again to go further.

        Raises
        ------
        InvalidDicomError
            If the bytes break the encoding rules.
        """
        if self.found.cut or self.found.pixels:
            return
        try:
            yield from self._run(stop_after)
        except zlib.error as error:
            raise InvalidDicomError(f"the deflated data set is damaged ({error})") from None
        except PackedEndError:
            self.found.cut = "the object ends inside its deflated data set"

    def _run(self, stop_after: int) -> Reading[None]:
        window = self._window
        # Sequences and items of undefined length that are open: the explicitness of what is around each.
        open_levels: list[bool] = []
        for _ in range(_MOST_ELEMENTS):
            if self._little:
                stride = self._stride if self._explicit else self._stride_implicit
                # From the pixels' group on `_element` is asked. Within sequences no value is wanted, and no group ends.
                if open_levels:
                    stride(0x7FDF, _NOTHING)
                else:
                    stride(min(stop_after, 0x7FDF), self._plain)
            if not (yield from window.need(8)):
                if open_levels:
                    self.found.cut = "the object ends inside a sequence"
                return  # fewer than eight bytes after the last element are padding
            offset = window.position - window.start
            group, element = self._tag.unpack_from(window.data, offset)
            tag = group << 16 | element
            if group == 0xFFFE:
                yield from self._delimiter(tag, self._long.unpack_from(window.data, offset + 4)[0], open_levels)
                continue
            if not open_levels and (group > stop_after or group == 0):
                return  # a group 0 after the data set is padding
            if (yield from self._element(tag, open_levels)):
                return
        raise InvalidDicomError(f"more than {_MOST_ELEMENTS} elements before the pixels")

    def _stride(self, stop_after: int, plain: Mapping[int, tuple[int, int]]) -> None:
        """Step over the plain elements that lie whole in the window, which most of a header is.

        It ends before whatever needs a closer look. What it does `_element` does too, at three times the cost.
        """
        window, data, values = self._window, self._window.data, self.found.values
        unpack, unpack_long = _PLAIN_HEADER.unpack_from, self._long.unpack_from
        size = len(data)
        last = size - 12
        offset = window.position - window.start
        while 0 <= offset <= last:
            swapped, vr, length = unpack(data, offset)
            if not 0 < swapped & 0xFFFF <= stop_after or vr not in _HEADER_SIZE:
                break
            begin = offset + _HEADER_SIZE[vr]
            if begin - offset == 12:
                (length,) = unpack_long(data, offset + 8)
            after = begin + length
            if after > size:
                break
            if swapped in plain:
                expected, tag = plain[swapped]
                if vr == expected and length <= LONGEST_VALUE:
                    values[tag] = data[begin:after]
                else:
                    self._take(tag, data[offset + 4 : offset + 6], data, begin, length)
            offset = after
        window.position = window.start + offset

    def _stride_implicit(self, stop_after: int, plain: Mapping[int, tuple[int, int]]) -> None:
        """Do the same for elements without a VR."""
        window, data, values = self._window, self._window.data, self.found.values
        unpack = _IMPLICIT_HEADER.unpack_from
        size = len(data)
        last = size - 8
        offset = window.position - window.start
        while 0 <= offset <= last:
            swapped, length = unpack(data, offset)
            after = offset + 8 + length
            if after > size or not 0 < swapped & 0xFFFF <= stop_after:
                break
            if swapped in plain:
                tag = plain[swapped][1]
                if length <= LONGEST_VALUE:
                    values[tag] = data[offset + 8 : after]
                else:
                    self._take(tag, b"", data, offset + 8, length)
            offset = after
        window.position = window.start + offset

    def _take(self, tag: int, vr: bytes, data: bytes, begin: int, length: int) -> None:
        """Keep a wanted value, which lies in `data`, and the VR that it has against all expectation."""
        found = self.found
        if length > LONGEST_VALUE:
            found.unread[tag] = length
            return
        found.values[tag] = data[begin : begin + length]
        if vr and vr != self._wanted[tag]:
            found.vrs[tag] = vr

    def _element(self, tag: int, open_levels: list[bool]) -> Reading[bool]:
        """Take one element or step over it; true if the walk ends here."""
        window, found = self._window, self.found
        header, length, vr = yield from self._read_length()
        if header == 0:
            found.cut = f"the object ends inside the element {name(tag)}"
        elif not open_levels and tag in PIXELS:
            found.pixels = Pixels(tag, window.position + header, None if length == UNDEFINED else length)
        elif length == UNDEFINED:
            if not open_levels and tag in self._wanted:
                found.unread[tag] = length
            open_levels.append(self._explicit)
            window.position += header
        else:
            if not open_levels and tag in self._wanted:
                if length > LONGEST_VALUE:
                    found.unread[tag] = length
                elif (yield from window.need(header + length)):
                    self._take(tag, vr, window.data, window.position - window.start + header, length)
            window.position += header + length
            if window.position > window.size:
                found.cut = f"the element {name(tag)} runs past the end of the object"
        return bool(found.cut or found.pixels)

    def _delimiter(self, tag: int, length: int, open_levels: list[bool]) -> Reading[None]:
        """Step over the start or the end of an item or of a sequence."""
        if not open_levels:
            raise InvalidDicomError(f"{name(tag)} outside of a sequence, at byte {self._window.position}")
        window = self._window
        window.position += 8
        if tag == ITEM:
            if length != UNDEFINED:
                window.position += length
                return
            open_levels.append(self._explicit)
            if self._explicit and (yield from window.need(6)):
                # Within VR UN items are implicit (PS3.5 6.2.2, note 2), and some writers make others so too; some
                # make those of UN explicit. The first element's VR tells, and nothing else does.
                first = window.position - window.start
                vr = window.data[first + 4 : first + 6]
                self._explicit = vr.isalpha() and vr.isupper()
        elif tag in {ITEM_END, SEQUENCE_END}:
            self._explicit = open_levels.pop()
        else:
            raise InvalidDicomError(f"{name(tag)} at byte {self._window.position - 8} is no delimiter")

    def _read_length(self) -> Reading[tuple[int, int, bytes]]:
        """Return the bytes of the element's header (0 if the object ends in it), its value's length and its VR."""
        data = self._window.data
        offset = self._window.position - self._window.start
        vr = data[offset + 4 : offset + 6]
        if not self._explicit or not (vr.isalpha() and vr.isupper()):
            # Some writers put implicit elements into an explicit data set; no VR then stands where one must.
            return 8, self._long.unpack_from(data, offset + 4)[0], b""
        short = self._short.unpack_from(data, offset + 6)[0]
        # A VR that is younger than this program has the long form (PS3.5 7.1.2), whose first two bytes are zero. One
        # that is only misspelt has a length in them.
        if vr in _SHORT_LENGTH or (short and vr not in _LONG_LENGTH):
            return 8, short, vr
        if not (yield from self._window.need(12)):
            return 0, 0, vr
        return 12, self._long.unpack_from(self._window.data, self._window.position - self._window.start + 8)[0], vr


def name(tag: int) -> str:
    """Write a tag as the Standard does, `(0008,0016)`."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
