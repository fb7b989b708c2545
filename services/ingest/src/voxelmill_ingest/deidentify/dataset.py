"""De-identifying one DICOM data set, element by element, after Table E.1-1 (`profile`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pydicom.datadict import dictionary_has_tag, keyword_for_tag
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from voxelmill_ingest.deidentify.conformity import BULK, conforms, effective_vr, is_number
from voxelmill_ingest.deidentify.dates import shift_date, shift_date_time
from voxelmill_ingest.deidentify.dummies import DUMMIES, code_item, dummy_items
from voxelmill_ingest.deidentify.job import Patient
from voxelmill_ingest.deidentify.names import Forbidden, decoded_text, raw_text
from voxelmill_ingest.deidentify.profile import BASIC_CODE, EDITION, Action, Option, row_of, type_of
from voxelmill_ingest.deidentify.safe_private import safe_vr
from voxelmill_ingest.deidentify.words import clean

if TYPE_CHECKING:
    from pydicom import Dataset

    from voxelmill_ingest.deidentify.keys import Secrets
    from voxelmill_ingest.deidentify.profile import Row

_PATIENT_NAME: Final = Tag(0x0010, 0x0010)
_PATIENT_ID: Final = Tag(0x0010, 0x0020)
_CLASS_UIDS: Final = frozenset(
    {0x00041510, 0x00041512, 0x00080016, 0x0008001A, 0x0008001B, 0x0008010C, 0x00080117, 0x00080118, 0x00081150}
    | {0x00083002, 0x04000010}
)
"""UIDs of classes, schemes and contexts: they say what a thing is, not which one."""
_FREE_TEXTS: Final = frozenset({"LT", "ST", "UT"})
"""What is cleaned though the table has no row for the attribute: whatever it is, somebody wrote it."""
_NAMES: Final = frozenset({"AE", "PN", "UN", "UR"})
"""What is dropped where the table has no row."""
_BULK_GROUPS: Final = frozenset({0x0028, 0x7FE0})
"""Lookup tables, colour profile and the pixels with their offsets: the bulk data that an image is read with."""
_TEMPORAL: Final = frozenset({"DA", "DT", "TM"})
_CHECKED: Final = frozenset({"AS", "DS", "IS", "TM"})
"""What is held against the form of its Value Representation; dates and UIDs are where they are replaced."""
_TEXTS: Final = _FREE_TEXTS | {"LO", "SH", "UC"}


@dataclass(slots=True)
class Cleaner:
    """Cleans one data set in place. Make a new one for each.

    `uids` then holds what each original UID became, `patient` whose data set it was.
    """

    secrets: Secrets
    options: frozenset[Option]
    uids: dict[str, str] = field(default_factory=dict)
    patient: Patient | None = None
    _sop_class: str = ""
    _forbidden: Forbidden = field(default_factory=Forbidden)

    def __call__(self, dataset: Dataset) -> None:
        """Clean a data set: what identifies is gone from it, and it says how that was done."""
        self._sop_class = raw_text(dataset, 0x00080016).strip()
        self.patient = patient = _patient(dataset, self.secrets)
        self._forbidden.collect(dataset)
        self._clean(dataset, "")
        self._forbidden.take_uids(self.uids)
        self._forbidden.scrub(dataset)
        dataset.add_new(_PATIENT_NAME, "PN", patient.pseudonym)
        dataset.add_new(_PATIENT_ID, "LO", patient.pseudonym)
        self._say_how(dataset)

    def uid(self, original: str) -> str:
        """Return what stands for a UID; those that the Standard itself gives out stand for themselves."""
        if not original or (not UID(original).is_private and UID(original).name != original):
            return original
        new = self.uids.get(original)
        if new is None:
            new = self.uids[original] = self.secrets.uid(original)
        return new

    def _clean(self, dataset: Dataset, sequence: str) -> None:
        self._clean_private(dataset)
        for tag in list(dataset.keys()):
            if tag.is_private:
                continue
            vr = _vr(dataset, tag)
            row = row_of(tag)
            if vr is None or tag.group < 0x0008 or tag.element == 0 or tag.group >> 8 == 0x60 or tag.group == 0xFFFC:
                # Not in the dictionary, a group that no data set has, a group's length, an overlay, padding at the end.
                del dataset[tag]
                continue
            if not conforms(raw_text(dataset, tag) if vr in _CHECKED else "", vr):
                dataset.add_new(tag, vr, None)
            if row is None:
                self._without_row(dataset, tag, vr)
            else:
                attribute_type = type_of(tag, self._sop_class, sequence) if row.depends_on_type else "3"
                self._do(dataset, tag, vr, row.action(self.options, attribute_type), row, attribute_type)

    def _clean_private(self, dataset: Dataset) -> None:
        """Drop private elements but the safe ones, and private creators of which nothing is left."""
        private = [tag for tag in dataset.keys() if tag.is_private]  # noqa: SIM118 - a data set iterates over elements
        kept = set()
        for tag in private:
            if tag.element >= 0x1000:
                creator = BaseTag(tag.group << 16 | tag.element >> 8)
                if Option.PRIVATE in self.options and self._is_safe(dataset, tag, raw_text(dataset, creator)):
                    kept |= {tag, creator}
        for tag in private:
            if tag not in kept:
                del dataset[tag]

    def _is_safe(self, dataset: Dataset, tag: BaseTag, creator: str) -> bool:
        vr, element = safe_vr(creator, tag), dataset.get_item(tag)
        if vr is None or element.VR not in {vr, None, "UN"}:  # implicit VR says nothing of private elements
            return False
        return is_number(element.value, raw_text(dataset, tag), vr)

    def _without_row(self, dataset: Dataset, tag: BaseTag, vr: str) -> None:
        """Treat an attribute that Table E.1-1 does not name: it may stay, unless its kind says that it may identify."""
        if vr == "SQ":
            self._items(dataset, tag)
        elif vr == "UI":
            if tag not in _CLASS_UIDS:
                self._new_uids(dataset, tag)
            elif not conforms(raw_text(dataset, tag), vr):
                dataset.add_new(tag, vr, None)
        elif vr in _FREE_TEXTS:
            if not self._clean_value(dataset, tag, vr):
                self._dummy(dataset, tag, vr)
        elif vr in _TEMPORAL:
            if not (Option.DATES in self.options and self._shift(dataset, tag, vr)):
                del dataset[tag]
        elif vr in _NAMES or (vr in BULK and tag.group not in _BULK_GROUPS):
            del dataset[tag]

    def _do(self, dataset: Dataset, tag: BaseTag, vr: str, action: Action, row: Row, attribute_type: str) -> None:
        if vr == "SQ" and action in {Action.KEEP, Action.CLEAN, Action.UID}:
            self._items(dataset, tag)
        elif action is Action.EMPTY:
            dataset.add_new(tag, vr, [] if vr == "SQ" else None)
        elif action is Action.DUMMY:
            self._dummy(dataset, tag, vr)
        elif vr == "UI" and (
            action is Action.UID or (action is Action.KEEP and not conforms(raw_text(dataset, tag), vr))
        ):
            self._new_uids(dataset, tag)
        elif action is Action.CLEAN:
            if not self._clean_value(dataset, tag, vr):
                self._do(dataset, tag, vr, row.without_options(attribute_type), row, attribute_type)
        elif action is not Action.KEEP:
            del dataset[tag]

    def _clean_value(self, dataset: Dataset, tag: BaseTag, vr: str) -> bool:
        """Clean a value; false if nothing is left of it, or cleaning its kind of value is not built."""
        if vr in _TEMPORAL:
            return self._shift(dataset, tag, vr)
        if vr not in _TEXTS:
            return False
        value = dataset[tag].value
        if isinstance(value, bytes):
            return False  # of unknown Value Representation and too long for pydicom to take it for a text
        texts = [value] if isinstance(value, str) else [str(one) for one in value or ()]
        cleaned = [self._forbidden.without(clean(text)) for text in texts]
        if not any(cleaned):
            return not any(texts)  # what was empty stays so
        dataset.add_new(tag, vr, cleaned if len(cleaned) > 1 else cleaned[0])
        return True

    def _shift(self, dataset: Dataset, tag: BaseTag, vr: str) -> bool:
        if vr == "TM":
            return True
        days = self.patient.shift_days if self.patient else 0
        shift = shift_date if vr == "DA" else shift_date_time
        values = [one.strip(" \0") for one in raw_text(dataset, tag).split("\\")]
        if not any(values):
            return True
        moved = [shift(one, days) for one in values]
        if None in moved:
            return False
        dataset.add_new(tag, vr, moved if len(moved) > 1 else moved[0])
        return True

    def _new_uids(self, dataset: Dataset, tag: BaseTag) -> None:
        values = [self.uid(one.strip(" \0")) for one in raw_text(dataset, tag).split("\\")]
        dataset.add_new(tag, "UI", values if len(values) > 1 else values[0])

    def _dummy(self, dataset: Dataset, tag: BaseTag, vr: str) -> None:
        if vr == "SQ":
            self._items(dataset, tag)
            dataset.add_new(tag, vr, dummy_items(dataset[tag].value))
        elif vr == "UI":
            self._new_uids(dataset, tag)
        elif vr in DUMMIES:
            dataset.add_new(tag, vr, DUMMIES[vr])
        else:
            del dataset[tag]

    def _items(self, dataset: Dataset, tag: BaseTag) -> None:
        for item in dataset[tag].value or ():
            self._clean(item, keyword_for_tag(tag))

    def _say_how(self, dataset: Dataset) -> None:
        """Add what the profile asks for (PS3.15 E.1.1)."""
        codes = [BASIC_CODE, *(option.code for option in Option if option in self.options)]
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = f"Voxelmill, DICOM PS3.15 {EDITION} Annex E"
        dataset.DeidentificationMethodCodeSequence = [code_item(*code) for code in codes]
        dataset.LongitudinalTemporalInformationModified = "MODIFIED" if Option.DATES in self.options else "REMOVED"


def _patient(dataset: Dataset, secrets: Secrets) -> Patient:
    """Tell whose a data set is: by Patient ID and who gave it, else by name and date of birth, else by the study."""
    tags = {"id": 0x00100020, "issuer": 0x00100021, "name": 0x00100010, "birth_date": 0x00100030}
    raw = {name: raw_text(dataset, tag).strip(" \0") for name, tag in tags.items()}
    if raw["id"]:
        identity = f"id\0{raw['issuer']}\0{raw['id']}"
    elif raw["name"]:
        identity = f"name\0{raw['name']}\0{raw['birth_date']}"
    else:
        identity = f"study\0{raw_text(dataset, 0x0020000D).strip(' ' + chr(0))}"
    fields = {name: decoded_text(dataset, tag).strip(" \0") for name, tag in tags.items()}
    return Patient(identity, fields, secrets.pseudonym(identity), secrets.shift_days(identity))


def _vr(dataset: Dataset, tag: BaseTag) -> str | None:
    """Return the Value Representation that an element is treated as; None if nobody can say what it holds."""
    return effective_vr(tag, dataset.get_item(tag).VR) if dictionary_has_tag(tag) else None
