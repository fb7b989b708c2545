"""What an object says about persons and places, so that it can be looked for where the table would not expect it.

Table E.1-1 goes by attribute. A technician who types a name into a field that is none is seen only by comparing: what
the identifying attributes of this very object hold may stand nowhere else in its copy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.multival import MultiValue

from voxelmill_ingest.deidentify.dummies import REMOVED
from voxelmill_ingest.deidentify.words import ALLOWED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom import Dataset
    from pydicom.tag import BaseTag

_IDENTIFYING: Final = frozenset(
    {0x00080050, 0x00080080, 0x00080081, 0x00081040, 0x00100020, 0x00100021, 0x00101000, 0x00101001, 0x00101005}
    | {0x00101040, 0x00101050, 0x00101060, 0x00101080, 0x00101090, 0x00102154, 0x00102160, 0x00102180, 0x00102110}
    | {0x00200010, 0x00321033, 0x00380010, 0x00380300, 0x00380400, 0x00400244, 0x00400253, 0x00401001, 0x00402016}
    | {0x00402017, 0x00080092, 0x00080094, 0x00400275, 0x0040A123, 0x00120010, 0x00120020, 0x00120040}
)
"""Numbers, places and names that are no PN: Accession Number, Institution Name, Patient ID and the like."""
_SEARCHED: Final = frozenset({"LO", "SH", "LT", "ST", "UT", "UC", "CS", "AE", "PN"})
_ENUMERATED: Final = frozenset({0x00080008, 0x00080060, 0x00089007, 0x00280004})
"""Image Type, Modality, Frame Type, Photometric Interpretation: without them no image can be read."""
_SHORTEST: Final = 3
_NOBODY: Final = frozenset({"anonymized", "anonymised", "anonymous", "removed", "unknown", "none"})
"""What stands for a name where there is none."""
_PIECE: Final = re.compile(r"[^\W_]+")


def raw_text(dataset: Dataset, tag: int) -> str:
    """Return a value's bytes as text, one character a byte, without converting the element; empty if it is not there.

    Names in other alphabets look wrong this way, but two that are the same look the same.
    """
    element = dataset.get_item(tag)
    value = None if element is None else element.value
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("latin-1").rstrip(" \0")
    return "\\".join(str(one) for one in value) if isinstance(value, MultiValue | list) else str(value)


@dataclass(slots=True)
class Forbidden:
    """The texts that may stand nowhere in the copy, in lower case."""

    texts: set[str] = field(default_factory=set)
    words: set[str] = field(default_factory=set)

    def collect(self, dataset: Dataset) -> None:
        """Take what the identifying attributes of an untouched data set hold, those in sequences included."""
        for tag, vr, value in _values(dataset):
            if vr == "PN":
                self.words |= {word for word in _PIECE.findall(value.lower()) if len(word) >= _SHORTEST} - _NOBODY
            elif vr == "DA" and len(value) == 8:
                self.texts.add(value)
            elif vr == "DT" and len(value) >= 8 and value[:8].isdigit():
                self.texts.add(value[:8])
            elif tag in _IDENTIFYING and len(value.strip()) > _SHORTEST:
                self.texts.add(value.strip().lower())

    def has(self, text: str, words: set[str] | None = None) -> bool:
        """Whether a text holds any of them: a name (of `words`, if given) as a word, the others anywhere."""
        text = text.lower()
        if any(forbidden in text for forbidden in self.texts):
            return True
        return not (self.words if words is None else words).isdisjoint(_PIECE.findall(text))

    def without(self, text: str) -> str:
        """Return a text without the names that it holds as words, or nothing if it holds any other of them."""
        if not self.has(text):
            return text
        left = " ".join(word for word in text.split() if not self.has(word))
        return "" if self.has(left) else left

    def scrub(self, dataset: Dataset) -> None:
        """Replace every text of a cleaned data set that holds one of them."""
        for tag in list(dataset.keys()):
            vr = _vr(dataset, tag)
            if vr == "SQ":
                for item in dataset[tag].value or ():
                    self.scrub(item)
            elif vr in _SEARCHED and tag not in _ENUMERATED and (text := raw_text(dataset, tag)):
                # A code string is chosen from a list: HEAD is there a part of the body, whoever is called so.
                coded = vr == "CS"
                if self.has(text, self.words - ALLOWED if coded else self.words):
                    dataset.add_new(tag, vr, None if coded else REMOVED)


def _values(dataset: Dataset) -> Iterator[tuple[BaseTag, str, str]]:
    for tag in list(dataset.keys()):
        vr = _vr(dataset, tag)
        if vr == "SQ":
            element = dataset[tag]
            if element.VR == "SQ":
                for item in element.value or ():
                    yield from _values(item)
        elif vr == "PN" or tag in _IDENTIFYING or vr in {"DA", "DT"}:
            for value in raw_text(dataset, tag).split("\\"):
                yield tag, vr, value.strip(" \0")


def _vr(dataset: Dataset, tag: BaseTag) -> str:
    declared = dataset.get_item(tag).VR
    if declared and declared != "UN":
        return str(declared)
    return dictionary_VR(tag).split(" or ")[0] if dictionary_has_tag(tag) else ""
