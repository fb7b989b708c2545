"""What an object says about persons and places, so that it can be looked for where the table would not expect it.

Table E.1-1 goes by attribute. A technician who types a name into a field that is none is seen only by comparing: what
the identifying attributes of this very object hold may stand nowhere else in its copy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pydicom.datadict import dictionary_has_tag
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.multival import MultiValue

from voxelmill_ingest.deidentify.conformity import BULK, NUMBERS, effective_vr
from voxelmill_ingest.deidentify.dummies import REMOVED
from voxelmill_ingest.deidentify.words import ALLOWED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydicom import Dataset
    from pydicom.tag import BaseTag

_IDENTIFYING: Final = frozenset(
    {0x00080050, 0x00080080, 0x00080081, 0x00081040, 0x00100020, 0x00100021, 0x00101000, 0x00101001, 0x00101005}
    | {0x00101040, 0x00101050, 0x00101060, 0x00101080, 0x00101090, 0x00102154, 0x00102160, 0x00102180, 0x00102110}
    | {0x00200010, 0x00321033, 0x00380010, 0x00380300, 0x00380400, 0x00400244, 0x00400253, 0x00401001, 0x00402016}
    | {0x00402017, 0x00080092, 0x00080094, 0x00400275, 0x0040A123, 0x00120010, 0x00120020, 0x00120040}
)
"""Numbers, places and names that are no PN: Accession Number, Institution Name, Patient ID and the like."""
_SEARCHED: Final = frozenset({"LO", "SH", "LT", "ST", "UT", "UC", "AE", "PN"})
_TERMS: Final = (
    ALLOWED
    | {"derived", "localizer", "mixed", "monochrome", "monochrome1", "monochrome2", "original", "palette", "primary"}
    | {"reformatted", "rgb", "rtdose", "rtimage", "volume", "ybr"}
)
"""A code string is chosen from a list: HEAD is there a part of the body, whoever is called so."""
_PIXELS: Final = 0x7FE0
_SHORTEST: Final = 3
_LONG: Final = 5
"""Letters of what is looked for within words and bytes, and digits of what is looked for among numbers."""
_NOBODY: Final = frozenset({"anonymized", "anonymised", "anonymous", "removed", "unknown", "none"})
"""What stands for a name where there is none."""
_JOINTS: Final = ("", " ", "^", "_", "-", ".", ", ")
_PIECE: Final = re.compile(r"[^\W_]+")
_DATE: Final = re.compile(r"(\d{4})[.]?(\d{2})[.]?(\d{2})")
_WRITTEN: Final = (
    *("{0}{1}{2}", "{0}-{1}-{2}", "{0}.{1}.{2}", "{0}/{1}/{2}", "{0}_{1}_{2}"),
    *("{2}.{1}.{0}", "{2}/{1}/{0}", "{2}-{1}-{0}", "{1}.{2}.{0}", "{1}/{2}/{0}", "{1}-{2}-{0}"),
)
"""How people write year, month and day."""


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


def decoded_text(dataset: Dataset, tag: int) -> str:
    """Return a value as a text in the character set that the data set names, without converting the element."""
    raw = raw_text(dataset, tag)
    element = dataset.get_item(tag)
    if not isinstance(element, RawDataElement) or (raw.isascii() and "\x1b" not in raw):
        return raw
    value = convert_raw_data_element(element, encoding=dataset.original_character_set, ds=dataset).value
    return "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)


@dataclass(slots=True)
class Forbidden:
    """The texts that may stand nowhere in the copy, in lower case: `words` as words, `texts` anywhere."""

    texts: set[str] = field(default_factory=set)
    words: set[str] = field(default_factory=set)
    _answers: dict[str, bool] = field(default_factory=dict)

    def collect(self, dataset: Dataset) -> None:
        """Take what the identifying attributes of an untouched data set hold, those in sequences included."""
        for tag, vr, value in _values(dataset):
            if vr == "PN":
                self._take_name(value.lower())
            elif vr in {"DA", "DT"}:
                if date := _DATE.match(value):
                    self.texts |= {form.format(*date.groups()) for form in _WRITTEN}
            elif tag in _IDENTIFYING and len(value) > _SHORTEST:
                self.texts.add(value.lower())

    def take_uids(self, uids: Iterable[str]) -> None:
        """Take UIDs that stand for others now."""
        self.texts |= {uid.lower() for uid in uids if len(uid) > _LONG}

    def _take_name(self, value: str) -> None:
        """Take a name's words, and the whole of it where its words are too short or of another alphabet."""
        self.words |= {word for word in _PIECE.findall(value) if len(word) >= _SHORTEST} - _NOBODY
        for group in value.split("="):
            parts = [part.strip() for part in group.split("^") if part.strip()]
            if _NOBODY.issuperset(parts) or _TERMS.issuperset(parts):
                continue
            self.texts |= {part for part in parts if not part.isascii() and len(part) >= _SHORTEST}
            if len(parts) > 1:
                family, given = parts[:2]
                joined = {joint.join(pair) for pair in ((family, given), (given, family)) for joint in _JOINTS}
                self.texts |= {text for text in joined if len(text) >= _LONG}

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
        """Replace every text of a cleaned data set that holds one of them, and drop what else does."""
        for tag in list(dataset.keys()):
            vr = _vr(dataset, tag)
            if vr == "SQ":
                for item in dataset[tag].value or ():
                    self.scrub(item)
            elif tag.group != _PIXELS and (text := raw_text(dataset, tag)):
                self._scrub_value(dataset, tag, vr, text)

    def _scrub_value(self, dataset: Dataset, tag: BaseTag, vr: str, text: str) -> None:
        if vr == "CS":
            values = text.split("\\")
            kept = [REMOVED if self._is_coded(value) else value for value in values]
            if kept != values:
                dataset.add_new(tag, vr, kept if len(kept) > 1 else None)
        elif vr in _SEARCHED:
            if self._known(text) or self._known(decoded_text(dataset, tag)):
                dataset.add_new(tag, vr, REMOVED)
        elif vr in {"DS", "IS"}:
            if any(len(one) > _LONG and one.strip() in self.texts for one in text.split("\\")):
                dataset.add_new(tag, vr, None)
        elif (tag.is_private or vr in BULK or vr in NUMBERS) and self._in_bytes(text):
            del dataset[tag]

    def _is_coded(self, value: str) -> bool:
        return value.strip().lower() not in _TERMS and self.has(value, self.words - _TERMS)

    def _known(self, text: str) -> bool:
        """Answer `has`, once for each of the texts that the frames of an image repeat."""
        answer = self._answers.get(text)
        if answer is None:
            answer = self._answers[text] = self.has(text)
        return answer

    def _in_bytes(self, text: str) -> bool:
        if len(text) < _LONG:
            return False
        text = text.lower()
        return any(len(one) >= _LONG and one in text for one in (*self.texts, *self.words))


def _values(dataset: Dataset) -> Iterator[tuple[BaseTag, str, str]]:
    for tag in list(dataset.keys()):
        vr = _vr(dataset, tag)
        if vr == "SQ":
            element = dataset[tag]
            if element.VR == "SQ":
                for item in element.value or ():
                    yield from _values(item)
        elif vr == "PN" or tag in _IDENTIFYING or vr in {"DA", "DT"}:
            for text in {raw_text(dataset, tag), decoded_text(dataset, tag)}:
                for value in text.split("\\"):
                    yield tag, vr, value.strip(" \0")


def _vr(dataset: Dataset, tag: BaseTag) -> str:
    declared = dataset.get_item(tag).VR
    if dictionary_has_tag(tag):
        return effective_vr(tag, declared) or str(declared or "")
    return str(declared or "")
