"""What people search for, out of the first bytes of a DICOM object: texts for columns, and DICOM JSON (PS3.18 F.2).

It reads with pydicom, whose import costs 100 ms and 20 MB: import this module where there is something to read. What
cannot be read is left out, element by element, and what is hostile is cut: texts to `LONGEST_TEXT` characters (an index
of PostgreSQL takes no more than 2,704 bytes), elements whose JSON is longer than `LONGEST_JSON` altogether.
"""

from __future__ import annotations

import io
import json
import logging
import re
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydicom.datadict import tag_for_keyword
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset, read_partial
from pydicom.multival import MultiValue
from pydicom.uid import DeflatedExplicitVRLittleEndian

from voxelmill_shared.catalog.names import fold_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydicom import Dataset
    from pydicom.tag import BaseTag

HEAD_BYTES: Final = 256 << 10
"""How much of an object is read. What describes patient, study and series stands in the first few KB of most."""
INFLATED_BYTES: Final = 1 << 20
"""How much of a deflated data set is unpacked."""
LONGEST_TEXT: Final = 256
"""Characters of a column: the longest legal name has 194 (PS3.5 6.2)."""
LONGEST_JSON: Final = 4096
"""Characters of one element: the longest are sequences of requests."""
_LAST_GROUP: Final = 0x0040
_DEFLATED: Final = b"\x02\x00\x10\x00UI\x16\x00" + DeflatedExplicitVRLittleEndian.encode()
_UNDEFINED: Final = 0xFFFFFFFF
_MOST: Final = 1 << 31
_UNREADABLE: Final = (
    BytesLengthException,
    InvalidDicomError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom raises on headers and values that are broken in one way or another, read from memory."""

_STUDY: Final = (
    *("TimezoneOffsetFromUTC", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
    *("StudyDescription", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("PatientAge", "PatientSize", "PatientWeight", "PatientIdentityRemoved", "DeidentificationMethod"),
    *("StudyInstanceUID", "StudyID"),
)
"""Attributes of patient and study (PS3.18 Table 10.6.1-3, PS3.4 Table C.6-1)."""
_SERIES: Final = (
    *("SeriesDate", "SeriesTime", "Modality", "Manufacturer", "ManufacturerModelName", "InstitutionName"),
    *("StationName", "SeriesDescription", "PerformingPhysicianName", "BodyPartExamined", "ProtocolName"),
    *("PatientPosition", "SeriesInstanceUID", "SeriesNumber", "Laterality", "FrameOfReferenceUID"),
    *("PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime", "PerformedProcedureStepID"),
    *("PerformedProcedureStepDescription", "RequestAttributesSequence"),
)
"""Attributes of the series (PS3.18 Table 10.6.1-4)."""
_INSTANCE: Final = ("SOPClassUID", "SOPInstanceUID", "InstanceNumber", "NumberOfFrames", "Rows", "Columns")
_WANTED: Final = frozenset(
    int(tag)
    for keyword in ("SpecificCharacterSet", *_STUDY, *_SERIES, *_INSTANCE)
    if (tag := tag_for_keyword(keyword)) is not None
)
_TELLING: Final = _WANTED - {0x00080005}
"""Any one of these makes it a header; of bytes that are no DICOM none comes out."""

logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # what it says of values may name people, and goes in no log


@dataclass(frozen=True, slots=True)
class Header:
    """What a header says. `columns` are those of `catalog.tables.HEADERS` that it can fill, but for the UIDs.

    `study_json` and `series_json` are DICOM JSON with the UIDs that the header has; `instance` is what it says of the
    object itself.
    """

    columns: dict[str, Any]
    study_json: dict[str, Any]
    series_json: dict[str, Any]
    instance: InstanceFacts


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """What a header says of its object; empty where it says nothing that can be read."""

    study_instance_uid: str = ""
    series_instance_uid: str = ""
    sop_instance_uid: str = ""
    sop_class_uid: str = ""
    transfer_syntax_uid: str = ""
    instance_number: int | None = None
    rows: int = 0
    columns: int = 0
    frames: int = 1


def read_header(head: bytes) -> Header | None:
    """Read the header of an object by its first bytes; none if they are no DICOM that can be read.

    Values that stand behind the end of the bytes are left out.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset, syntax = _parsed(head)
            if not dataset.keys() & _TELLING:
                return None
            values = _Values(dataset)
            return Header(_columns(values), values.json(_STUDY), values.json(_SERIES), _instance(values, syntax))
    except _UNREADABLE:
        return None


@dataclass(slots=True)
class _Stop:
    """Ends the reading behind the last group, and before an element whose value is not all there."""

    file: io.BytesIO
    size: int
    before: int = (_LAST_GROUP + 1) << 16
    last: int = 0

    def __call__(self, tag: BaseTag, _vr: str | None, length: int) -> bool:
        self.last = int(tag)
        cut = length != _UNDEFINED and self.file.tell() + length > self.size
        return self.last >= self.before or cut


def _parsed(head: bytes) -> tuple[Dataset, str]:
    """Read the wanted elements and the transfer syntax; of bytes that end in the middle, what stands before."""
    inflated = _inflated(head)
    data = head if inflated is None else inflated
    stop = _Stop(io.BytesIO(data), len(data))
    try:
        dataset = _read(stop, raw=inflated is not None)
    except _UNREADABLE:
        dataset = None
    if not dataset and stop.last:
        # It ended inside of a sequence, say: pydicom then gives up all that it has read. Once more, up to there.
        stop = _Stop(io.BytesIO(data), len(data), before=min(stop.last, stop.before))
        dataset = _read(stop, raw=inflated is not None)
    if not dataset:
        raise InvalidDicomError
    syntax = DeflatedExplicitVRLittleEndian if inflated is not None else dataset.file_meta.get("TransferSyntaxUID")
    return dataset, str(syntax or "")


def _read(stop: _Stop, *, raw: bool) -> Dataset:
    wanted: list[BaseTag | int] = list(_WANTED)
    if raw:  # explicit VR, little endian
        return read_dataset(stop.file, False, True, stop_when=stop, specific_tags=wanted)
    return read_partial(stop.file, stop_when=stop, force=True, specific_tags=wanted)


def _inflated(head: bytes) -> bytes | None:
    """Inflate the data set of a deflated object (PS3.5 A.5), not more of it than allowed; none if it is no such."""
    if DeflatedExplicitVRLittleEndian.encode() not in head:
        return None
    end = 144 + int.from_bytes(head[140:144], "little")
    if head[128:140] != b"DICM\x02\x00\x00\x00UL\x04\x00" or _DEFLATED not in head[:end]:
        # pydicom would inflate all of it at once, whatever that comes to.
        raise InvalidDicomError
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(head[end:], INFLATED_BYTES)


@dataclass(frozen=True, slots=True)
class _Values:
    """The values of a header: each is read by itself, so that one that is broken spoils no other."""

    dataset: Dataset

    def text(self, keyword: str) -> str:
        """Return a value as a column takes it; empty where there is none that can be read."""
        try:
            value = self.dataset.get(keyword)
            text = "" if value is None else "\\".join(map(str, value)) if _is_many(value) else str(value)
        except _UNREADABLE:
            return ""
        return _sound(text).strip()[:LONGEST_TEXT]

    def number(self, keyword: str) -> int | None:
        """Return a whole number that a database can hold, or none."""
        text = self.text(keyword)
        number = int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else None
        return None if number is None or abs(number) >= _MOST else number

    def json(self, keywords: Iterable[str]) -> dict[str, Any]:
        """Return elements as DICOM JSON, in the order of their tags."""
        found: dict[str, Any] = {}
        for tag in sorted(filter(None, map(tag_for_keyword, keywords))):
            if tag not in self.dataset:
                continue
            try:
                element = self.dataset[tag].to_json_dict(None, 0)
                text = _sound(json.dumps(element, ensure_ascii=False))
            except _UNREADABLE:
                continue
            if len(text) <= LONGEST_JSON:
                found[f"{tag:08X}"] = json.loads(text)
        return found


def _is_many(value: object) -> bool:
    return isinstance(value, MultiValue | list | tuple)


def _sound(text: str) -> str:
    """Return a text that every database can hold: without NUL, as it is and escaped in JSON, and lone surrogates."""
    text = text.replace("\0", "\ufffd").replace("\\u0000", "\ufffd")
    return text.encode("utf-8", "replace").decode("utf-8")


def _columns(values: _Values) -> dict[str, Any]:
    name = values.text("PatientName")
    return {
        "patient_id": values.text("PatientID"),
        "patient_name": name,
        "patient_name_folded": fold_name(name)[:LONGEST_TEXT],
        "patient_birth_date": _date(values.text("PatientBirthDate")),
        "patient_sex": values.text("PatientSex"),
        "study_date": _date(values.text("StudyDate")),
        "study_time": _time(values.text("StudyTime")),
        "accession_number": values.text("AccessionNumber"),
        "referring_physician_name": values.text("ReferringPhysicianName"),
        "study_id": values.text("StudyID"),
        "study_description": values.text("StudyDescription"),
        "modality": values.text("Modality"),
        "series_number": values.number("SeriesNumber"),
        "series_description": values.text("SeriesDescription"),
        "body_part_examined": values.text("BodyPartExamined"),
    }


def _date(text: str) -> str:
    """Return YYYYMMDD, also of YYYY.MM.DD (PS3.5 6.2, of before 1993); empty where it is no date."""
    digits = re.sub(r"^(\d{4})\.(\d{2})\.(\d{2})$", r"\1\2\3", text)
    return digits if re.fullmatch(r"[0-9]{8}", digits) else ""


def _time(text: str) -> str:
    """Return HHMMSS.FFFFFF, or as much of it as there is; also of HH:MM:SS. Empty where it is no time."""
    digits = text.replace(":", "")
    return digits if re.fullmatch(r"[0-9]{2}([0-9]{2}([0-9]{2}(\.[0-9]{1,6})?)?)?", digits) else ""


def _instance(values: _Values, syntax: str) -> InstanceFacts:
    return InstanceFacts(
        study_instance_uid=values.text("StudyInstanceUID"),
        series_instance_uid=values.text("SeriesInstanceUID"),
        sop_instance_uid=values.text("SOPInstanceUID"),
        sop_class_uid=values.text("SOPClassUID"),
        transfer_syntax_uid=_sound(syntax)[:LONGEST_TEXT],
        instance_number=values.number("InstanceNumber"),
        rows=values.number("Rows") or 0,
        columns=values.number("Columns") or 0,
        frames=values.number("NumberOfFrames") or 1,
    )
