"""What identifies somebody in the test data, and everything that a run has written: the one is looked for in the other."""

from __future__ import annotations

import gzip
import io
import re
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pydicom
from pydicom.datadict import dictionary_has_tag

from voxelmill_ingest.deidentify.words import clean

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UID = re.compile(rb"(?:\d+\.)+\d+")
NUMBERS = ("PatientID", "OtherPatientIDs", "IssuerOfPatientID", "AccessionNumber", "InstitutionName", "StudyID")
PLACES = ("InstitutionAddress", "InstitutionalDepartmentName", "AdmissionID", "PatientAddress", "RequestingService")
TEXTS = (
    "SeriesDescription",
    "StudyDescription",
    "ProtocolName",
    "ImageComments",
    "PatientComments",
    "DerivationDescription",
)
CLASSES = (
    "SOPClassUID",
    "TransferSyntaxUID",
    "SchemeUID",
    "ContextUID",
    "MappingResourceUID",
    "ImplementationClassUID",
)


def elements(dataset: pydicom.Dataset) -> Iterator[pydicom.DataElement]:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value or ():
                yield from elements(item)
        elif not element.tag.is_private:
            yield element


def values(element: pydicom.DataElement) -> list[str]:
    value = element.value
    return [str(one).strip() for one in (value if isinstance(value, pydicom.multival.MultiValue) else [value])]


@dataclass
class Identifying:
    """What the originals say that nobody else may learn."""

    texts: set[str]
    uids: set[str]
    kept: set[str] = field(default_factory=set)
    """Serial numbers of devices, which the option keeps; one of them is a patient's number elsewhere."""

    def found_in(self, blob: bytes) -> set[str]:
        uids = {one.decode() for one in UID.findall(blob)} & self.uids
        raw = [text.encode("utf-8", "replace") for text in self.texts]
        hits = [text for text in raw if text in blob]  # quick; then as a word of its own, not as digits of a number
        return uids | {text.decode() for text in hits if re.search(rb"(?<![\w.])" + re.escape(text) + rb"(?!\w)", blob)}


def collect(data: Path) -> Identifying:
    """Return everything of that kind in a folder, read by pydicom and picked by keyword, not by our table."""
    found = Identifying(set(), set())
    read = pydicom.config.settings.reading_validation_mode
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    try:
        for path in data.rglob("*"):
            if path.is_file():
                _collect(path, found)
    finally:
        pydicom.config.settings.reading_validation_mode = read
    # Words of the trade (a patient called SPINE, a CHEST protocol) and what others have put for a name tell nobody.
    found.texts = {text for text in found.texts if clean(text) != text} - {"REMOVED", "Removed"} - found.kept
    return found


def _collect(path: Path, found: Identifying) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            listed = list(elements(pydicom.dcmread(path, force=True, stop_before_pixels=True)))
        except Exception:  # noqa: BLE001 - broken on purpose: what pydicom cannot read, nobody can look for
            return
        for element in listed:
            for value in values(element) if dictionary_has_tag(element.tag) else ():
                if element.VR == "UI":
                    if not element.keyword.endswith(CLASSES) and not value.startswith("1.2.840.10008"):
                        found.uids.add(value)
                elif element.keyword == "DeviceSerialNumber":
                    found.kept.add(value)
                elif element.VR == "PN":
                    found.texts |= {one for one in re.split(r"[\^= ]", value) if len(one) > 4}
                elif element.keyword in NUMBERS + PLACES + TEXTS and len(value) > 5:
                    found.texts.add(value)


def read_all(folder: Path, *, but: Path | None = None) -> Iterator[tuple[Path, bytes]]:
    """Every file that was written; of a DICOM copy what is not pixels, of what is gzip what is in it."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or but in path.parents:
            continue
        body = path.read_bytes()
        if path.suffix == ".dcm":
            buffer = io.BytesIO()
            dataset = pydicom.dcmread(path)
            body = body[: 132 + 1024]
            for tag in (0x7FE00008, 0x7FE00009, 0x7FE00010):
                if tag in dataset:
                    del dataset[tag]
            if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
                dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
            elif dataset.file_meta.TransferSyntaxUID.is_deflated:
                body, dataset.file_meta.TransferSyntaxUID = b"", pydicom.uid.ExplicitVRLittleEndian
            pydicom.dcmwrite(buffer, dataset)
            body += buffer.getvalue()
        elif body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)[:1024]
        yield path, body
