"""The DICOM JSON Model (PS3.18 Annex F): data sets as JSON objects.

Most elements are plain ASCII text or numbers and are converted from their bytes. Whatever else there is (other
character sets, ambiguous or unknown value representations) goes through pydicom's data element, which is slower.
"""

from __future__ import annotations

import base64
import math
import re
import struct
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.valuerep import PersonName

from voxelmill_shared.imaging.image import HEADER_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pydicom import Dataset

Json: TypeAlias = dict[str, Any]

INLINE_BYTES: Final = 1024
"""The longest binary value that stands in the JSON itself; a longer one is bulk data (PS3.18 F.2.6)."""

_BYTES: Final = {"OB": 1, "OD": 8, "OF": 4, "OL": 4, "OV": 8, "OW": 2, "UN": 1}
"""Binary value representations, with the bytes of a word."""
_STRUCTS: Final = {
    "FL": "f",
    "FD": "d",
    "SL": "i",
    "SS": "h",
    "SV": "q",
    "UL": "I",
    "US": "H",
    "UV": "Q",
}
_ENCODED: Final = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "PN", "SH", "TM", "UC", "UI"})
"""What is written as text, several between backslashes."""
_TEXTS: Final = frozenset({"LT", "ST", "UR", "UT"})
_CHARACTER_SET: Final = 0x00080005
_UNICODE: Final = {"vr": "CS", "Value": ["ISO_IR 192"]}
_DECIMAL: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\Z")
_INTEGER: Final = re.compile(r"[+-]?\d+\Z")
_LARGEST_WHOLE: Final = 1 << 53
"""Beyond it, readers that hold numbers as doubles, JavaScript's, would round (RFC 8259, 6): there the text stands."""

Place: TypeAlias = "Callable[[Sequence[str]], str]"
"""Returns the address of bulk data by its path: tags, with the number of the item, from 0, behind each sequence."""


def to_json(dataset: Dataset, place: Place, path: tuple[str, ...] = ()) -> Json:
    """Return a data set as a JSON object.

    Parameters
    ----------
    dataset
        Read by pydicom, with as many raw elements as possible. The group 0002 is no part of it.
    place
        Where bulk data are to be had.
    path
        Where the data set stands among sequences.

    Returns
    -------
    dict
        By tag, in ascending order. Text is Unicode, and Specific Character Set says so. An element that cannot be read
        stands there with its bytes, as `UN`.
    """
    found: Json = {}
    for tag in sorted(dataset.keys()):
        if not tag & 0xFFFF:
            continue  # group lengths, retired
        name = f"{int(tag):08X}"
        if tag == _CHARACTER_SET:
            found[name] = _UNICODE
            continue
        found[name] = _element(dataset, tag, place, (*path, name))
    return found


def bulk_bytes(dataset: Dataset, path: Sequence[str]) -> bytes | None:
    """Return the value of a binary element by the path that `to_json` gave its place, in little-endian words.

    None if there is no such element, or it is not binary.
    """
    *above, last = path
    for sequence, number in zip(above[::2], above[1::2], strict=True):
        items = dataset[int(sequence, 16)].value
        dataset = items[int(number)]
    element = dataset[int(last, 16)]
    vr = str(element.VR)
    if vr not in _BYTES and " or " not in vr:
        return None
    return _in_order(vr if vr in _BYTES else "UN", element.value or b"", little_endian=_is_little(dataset))


def _element(dataset: Dataset, tag: BaseTag, place: Place, path: tuple[str, ...]) -> Json:
    raw = dataset.get_item(tag)
    try:
        if isinstance(raw, RawDataElement) and (quick := _quickly(raw, place, path)) is not None:
            return quick
        return _slowly(dataset[tag], place, path, little_endian=_is_little(dataset))
    except HEADER_ERRORS:
        value = raw.value if isinstance(raw, RawDataElement) else None
        return _binary("UN", value or b"", place, path)


def _is_little(dataset: Dataset) -> bool:
    return dataset.original_encoding[1] is not False


def _quickly(raw: RawDataElement, place: Place, path: tuple[str, ...]) -> Json | None:
    """Convert an element from its bytes; None if pydicom must be asked."""
    vr, value = raw.VR or _usual(raw.tag), raw.value or b""
    if vr in _STRUCTS:
        return _numbers(vr, value, little_endian=raw.is_little_endian)
    if vr in _BYTES and vr != "UN":
        return _binary(vr, _in_order(vr, value, little_endian=raw.is_little_endian), place, path)
    if vr in _TEXTS or vr in _ENCODED:
        if not value.isascii() or b"\x1b" in value:
            return None
        text = value.decode("ascii").rstrip("\0 ")
        values = [text] if vr in _TEXTS else text.split("\\")
        return _filled(vr, [_VALUES.get(vr, _plain)(one) for one in values])
    return None


def _usual(tag: BaseTag) -> str:
    """Return the value representation that an element has where its encoding names none; empty if that is unknown."""
    try:
        return "" if tag.is_private else dictionary_VR(tag)
    except KeyError:
        return ""


def _slowly(element: DataElement, place: Place, path: tuple[str, ...], *, little_endian: bool) -> Json:
    vr, value = str(element.VR), element.value
    if vr == "SQ":
        items = [to_json(item, place, (*path, str(number))) for number, item in enumerate(value or ())]
        return {"vr": vr, "Value": items} if items else {"vr": vr}
    if vr in _BYTES or " or " in vr:
        vr = vr if vr in _BYTES else "UN"
        return _binary(vr, _in_order(vr, value or b"", little_endian=little_endian), place, path)
    values = list(value) if isinstance(value, MultiValue | list | tuple) else [value]
    if vr in _STRUCTS:
        return _filled(vr, [None if one is None else _finite(one) for one in values])
    if vr == "AT":
        return _filled(vr, [None if one in {None, ""} else f"{int(BaseTag(one)):08X}" for one in values])
    if vr == "PN":
        return _filled(vr, [_name(one) for one in values])
    return _filled(vr, [_VALUES.get(vr, _plain)(_original(one)) for one in values])


def _filled(vr: str, values: list[Any]) -> Json:
    return {"vr": vr, "Value": values} if any(value is not None for value in values) else {"vr": vr}


def _numbers(vr: str, value: bytes, *, little_endian: bool) -> Json:
    code = _STRUCTS[vr]
    count, rest = divmod(len(value), struct.calcsize(f"<{code}"))
    if rest:
        raise ValueError(f"{len(value)} bytes are no whole number of {vr}")
    numbers = struct.unpack(f"{'<' if little_endian else '>'}{count}{code}", value)
    return _filled(vr, [_finite(number) for number in numbers] if vr in {"FL", "FD", "SV", "UV"} else list(numbers))


def _finite(number: float) -> float | str:
    """Return a number, or its name where JSON has no way to write it, or many readers would round it."""
    if isinstance(number, int):
        return number if abs(number) <= _LARGEST_WHOLE else str(number)
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else ("Infinity" if number > 0 else "-Infinity")


def _binary(vr: str, value: bytes, place: Place, path: tuple[str, ...]) -> Json:
    if len(value) > INLINE_BYTES:
        return {"vr": vr, "BulkDataURI": place(path)}
    return {"vr": vr, "InlineBinary": base64.b64encode(value).decode()} if value else {"vr": vr}


def _in_order(vr: str, value: bytes, *, little_endian: bool) -> bytes:
    size = _BYTES[vr]
    if little_endian or size == 1 or len(value) % size:
        return value
    return np.frombuffer(value, f">u{size}").astype(f"<u{size}").tobytes()


def _original(value: Any) -> str:
    """Return a value as its file has it: pydicom's numbers and dates remember their text."""
    if value is None:
        return ""
    return str(getattr(value, "original_string", None) or value)


def _plain(text: str) -> str | None:
    return text.strip("\0 ") or None


def _text(text: str) -> str | None:
    return text.rstrip("\0 ") or None


def _decimal(text: str) -> float | str | None:
    text = text.strip("\0 ")
    if _INTEGER.match(text):
        return _finite(int(text)) if abs(int(text)) <= _LARGEST_WHOLE else text
    if _DECIMAL.match(text):
        number = float(text)
        return number if math.isfinite(number) else text
    return text or None  # what is no number stands as it was written


def _person(text: str) -> Json | None:
    return _groups(text.strip("\0 ").split("="))


def _name(name: Any) -> Json | None:
    return _groups([str(group) for group in name.components]) if isinstance(name, PersonName) else _person(str(name))


def _groups(groups: list[str]) -> Json | None:
    """Return the component groups of a name that are not empty (PS3.18 F.2.2)."""
    kinds = ("Alphabetic", "Ideographic", "Phonetic")
    found = {kind: group for kind, group in zip(kinds, groups, strict=False) if group}
    return found or None


_VALUES: Final[dict[str, Callable[[str], Any]]] = {
    "DS": _decimal,
    "IS": _decimal,
    "PN": _person,
    **dict.fromkeys(_TEXTS, _text),
}
