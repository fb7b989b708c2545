"""Values that stand for others and say nothing (action D of PS3.15 Table E.1-1a)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydicom import Dataset

if TYPE_CHECKING:
    from collections.abc import Iterable

REMOVED: Final = "REMOVED"

DUMMIES: Final[dict[str, Any]] = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), REMOVED),
    "AS": "000Y",
    "DA": "19000101",
    "DT": "19000101000000",
    "TM": "000000",
    "DS": "0",
    "IS": "0",
    **dict.fromkeys(("FD", "FL"), 0.0),
    **dict.fromkeys(("SL", "SS", "SV", "UL", "US", "UV"), 0),
    **dict.fromkeys(("OB", "OW", "UN"), b"\0\0"),
    "OF": b"\0\0\0\0",
    "OL": b"\0\0\0\0",
    "OD": b"\0\0\0\0\0\0\0\0",
    "UR": "urn:removed",
}
"""By Value Representation. UIDs get new ones instead, sequences `dummy_items`."""
_KEPT: Final = frozenset({"CS", "UI", "SQ"})


def dummy_items(items: Iterable[Dataset]) -> list[Dataset]:
    """Replace what the items of a sequence say; they keep their attributes, so that their type is still met.

    The items must have been cleaned already. Enumerated words, new UIDs and numbers stay; every text, code, date and
    bulk value is a dummy. A sequence that had no item gets an empty one.
    """
    replaced = [_replaced(item) for item in items]
    return replaced or [Dataset()]


def _replaced(item: Dataset) -> Dataset:
    for element in list(item):
        if element.VR == "SQ":
            element.value = dummy_items(element.value) if element.value else []
        elif element.VR in DUMMIES and element.VR not in _KEPT and not isinstance(element.value, int | float):
            item.add_new(element.tag, element.VR, DUMMIES[element.VR])
    return item


def code_item(value: str, meaning: str) -> Dataset:
    """Make an item of a code sequence with a code of DICOM's own (PS3.16)."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code
