"""Whether a value is of the kind that its Value Representation names (PS3.5 6.2).

An element is treated by what it is said to be. A name in a field for numbers would pass all rules for numbers.
"""

from __future__ import annotations

import re
from typing import Final

from pydicom.datadict import dictionary_VR

STRINGS: Final = frozenset(
    {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
)
NUMBERS: Final = {"AT": 4, "FD": 8, "FL": 4, "SL": 4, "SS": 2, "SV": 8, "UL": 4, "US": 2, "UV": 8}
"""Binary numbers, and their bytes."""
BULK: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_MOST_BYTES: Final = 512
"""Of a private number with all of its values. The longest of the table has six."""
_PATTERNS: Final = {
    "AS": re.compile(r"(\d{3}[DWMY])?"),
    "DS": re.compile(r"[-+.0-9eE]*"),
    "IS": re.compile(r"[-+0-9]*(\.0*)?"),
    "TM": re.compile(r"[-0-9:.]*"),
    "UI": re.compile(r"[0-9.]{0,64}"),
}


def effective_vr(tag: int, declared: str | None) -> str | None:
    """Return the Value Representation that an element of the dictionary is treated as.

    The dictionary's where the file has none, or another one of the same family, so that nothing escapes a rule by being
    called something else. None where the file's is of another family: nobody can then say what the element holds.
    """
    known = dictionary_VR(tag).split(" or ")
    if not declared or declared == "UN":
        return known[0]
    if declared in known:
        return declared
    for family in (STRINGS, NUMBERS, BULK):
        if declared in family:
            return next((vr for vr in known if vr in family), None)
    return None


def conforms(text: str, vr: str) -> bool:
    """Whether each value of a text is what its Value Representation asks for; those without a pattern always are."""
    pattern = _PATTERNS.get(vr)
    return pattern is None or all(pattern.fullmatch(one.strip(" \0")) for one in text.split("\\"))


def is_number(value: object, text: str, vr: str) -> bool:
    """Whether a private element holds numbers of a Value Representation and nothing else.

    Parameters
    ----------
    value, text
        Its value as it was read: bytes where nobody has converted it yet; and the same as a text.
    vr
        What Table E.3.10-1 says that it is.
    """
    if vr not in NUMBERS:
        return conforms(text, vr) and len(text) <= _MOST_BYTES
    return not isinstance(value, bytes) or (len(value) % NUMBERS[vr] == 0 and len(value) <= _MOST_BYTES)
