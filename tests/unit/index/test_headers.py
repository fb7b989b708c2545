"""What is read of a header for searching: sound ones, odd ones, cut ones and hostile ones."""

from __future__ import annotations

import io
import json
import zlib
from typing import TYPE_CHECKING, Any

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from voxelmill_index.headers import HEAD_BYTES, INFLATED_BYTES, LONGEST_JSON, LONGEST_TEXT, Header, read_header

if TYPE_CHECKING:
    from pydicom.uid import UID


def dataset(**values: Any) -> Dataset:
    """Make the header of a CT image; none deletes an element."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.3.4", "1.2.3.4.5"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Müller^Jörg", "P-1", "19700102", "M"
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.StudyID = "20200304", "101112.5", "A-1", "S-1"
    ds.StudyDescription, ds.SeriesDescription, ds.Modality = "Chest", "Lung 1.0", "CT"
    ds.ReferringPhysicianName = "Doe^Ann"
    ds.SeriesNumber, ds.InstanceNumber, ds.BodyPartExamined = 3, 7, "CHEST"
    ds.Rows, ds.Columns, ds.PixelData = 4, 6, bytes(48)
    for keyword, value in values.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def written(ds: Dataset, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """Write it as a file."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = syntax, CTImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    ds.file_meta = meta
    if "PixelData" in ds:
        ds["PixelData"].VR = "OW"
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def of(ds: Dataset, syntax: UID = ExplicitVRLittleEndian) -> Header:
    header = read_header(written(ds, syntax)[:HEAD_BYTES])
    assert header is not None
    return header


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_a_sound_header_gives_columns_and_json(syntax: UID) -> None:
    """In every encoding the same: texts as people write them, and DICOM JSON that pydicom reads back."""
    header = of(dataset(), syntax)
    assert header.columns == {
        "patient_id": "P-1",
        "patient_name": "Müller^Jörg",
        "patient_name_folded": "muller^jorg",
        "patient_birth_date": "19700102",
        "patient_sex": "M",
        "study_date": "20200304",
        "study_time": "101112.5",
        "accession_number": "A-1",
        "referring_physician_name": "Doe^Ann",
        "study_id": "S-1",
        "study_description": "Chest",
        "modality": "CT",
        "series_number": 3,
        "series_description": "Lung 1.0",
        "body_part_examined": "CHEST",
    }
    back = Dataset.from_json(header.study_json | header.series_json)
    assert (back.PatientName, back.StudyDate, back.SeriesNumber, back.SeriesInstanceUID) == (
        "Müller^Jörg",
        "20200304",
        3,
        "1.2.3.4.5",
    )
    assert "PixelData" not in back
    assert set(header.study_json) & set(header.series_json) == set()
    assert (header.instance.sop_instance_uid, header.instance.transfer_syntax_uid) == ("1.2.3", syntax)
    assert (header.instance.rows, header.instance.columns, header.instance.frames) == (4, 6, 1)


@pytest.mark.parametrize(
    ("keyword", "value", "column", "expected"),
    [
        ("StudyDate", "2020.03.04", "study_date", "20200304"),
        ("StudyDate", "last week", "study_date", ""),
        ("StudyTime", "10:11:12", "study_time", "101112"),
        ("StudyTime", "noon", "study_time", ""),
        ("SeriesNumber", "3.5", "series_number", None),
        ("SeriesNumber", "99999999999999999999", "series_number", None),
        ("PatientID", "x" * 60_000, "patient_id", "x" * LONGEST_TEXT),
        ("PatientID", "a\\b", "patient_id", "a\\b"),
        ("StudyDescription", "a\0b", "study_description", "a\ufffdb"),
        ("PatientName", None, "patient_name", ""),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_odd_values_are_cut_or_left_out(keyword: str, value: str | None, column: str, expected: object) -> None:
    """Each by itself: the others stand."""
    read = pydicom.config.settings.writing_validation_mode
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    try:
        ds = dataset()
        vr = ds[keyword].VR
        del ds[keyword]
        if value is not None:
            ds.add_new(keyword, "LO" if vr == "IS" else vr, value)
        body = written(ds)
    finally:
        pydicom.config.settings.writing_validation_mode = read
    header = read_header(body)
    assert header is not None
    assert header.columns[column] == expected
    assert header.columns["accession_number"] == "A-1"
    text = json.dumps([header.columns, header.study_json, header.series_json])
    assert "\\u0000" not in text
    text.encode("utf-8")


def test_texts_in_another_character_set_are_read_as_what_they_say() -> None:
    """Latin-1 becomes Unicode; bytes that are none of their set do no harm to the rest."""
    ds = dataset(SpecificCharacterSet="ISO_IR 100")
    assert of(ds).columns["patient_name"] == "Müller^Jörg"
    broken = written(dataset(PatientName="Muller")).replace(b"Muller", b"\xff\xfe\xfd\xfcer")
    header = read_header(broken)
    assert header is not None
    assert header.columns["patient_id"] == "P-1"
    header.columns["patient_name"].encode("utf-8")


def test_a_header_without_its_uids_is_one_all_the_same() -> None:
    """De-identifiers blank them, and ingest makes others: the rest is worth as much."""
    ds = dataset(SOPClassUID="", SOPInstanceUID="", StudyInstanceUID="", SeriesInstanceUID=None)
    buffer = io.BytesIO()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds["PixelData"].VR = "OW"
    pydicom.dcmwrite(buffer, ds)
    header = read_header(buffer.getvalue())
    assert header is not None
    assert header.columns["accession_number"] == "A-1"


def test_a_long_element_is_no_json() -> None:
    """A sequence with a hundred requests is left out, and what stands beside it is not."""
    ds = dataset()
    ds.RequestAttributesSequence = [Dataset() for _ in range(100)]
    for number, item in enumerate(ds.RequestAttributesSequence):
        item.RequestedProcedureDescription = f"procedure {number}"
    header = of(ds)
    assert "00400275" not in header.series_json
    assert all(len(json.dumps(element)) <= LONGEST_JSON for element in header.series_json.values())
    ds.RequestAttributesSequence = ds.RequestAttributesSequence[:1]
    assert "00400275" in of(ds).series_json


def test_a_header_longer_than_what_is_read_gives_what_stands_before() -> None:
    """A private element of 300 KB in front of the UIDs; then one inside a sequence, which pydicom gives up on."""
    ds = dataset()
    block = ds.private_block(0x0011, "Voxelmill test", create=True)
    block.add_new(1, "OB", bytes(300 << 10))
    header = of(ds)
    assert header.columns["patient_name"] == "Müller^Jörg"
    assert header.columns["series_number"] is None
    ds = dataset()
    item = Dataset()
    item.private_block(0x0011, "Voxelmill test", create=True).add_new(1, "OB", bytes(300 << 10))
    ds.ReferencedPatientSequence = [item]
    ds["ReferencedPatientSequence"].is_undefined_length = True
    header = of(ds)
    assert header.columns["accession_number"] == "A-1"


def test_every_cut_of_a_header_is_read_or_refused() -> None:
    """At whatever byte the bytes end: no error, and never a value that is not there."""
    body = written(dataset())
    for end in range(0, len(body), 7):
        header = read_header(body[:end])
        if header is not None:
            assert header.columns["patient_name"] in {"", "Müller^Jörg"}
            assert header.columns["series_number"] in {None, 3}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0" * 200,
        b"%PDF-1.4 no image at all" * 20,
        b"\0" * 128 + b"DICM",
        b"\0" * 128 + b"DICM" + b"\xff" * 500,
        b"\0" * 128 + b"DICM\x02\0\0\0UL\x04\0" + b"\xff\xff\xff\xff" + b"1.2.840.10008.1.2.1.99\0" * 3,
        # A sequence in a sequence in a sequence …
        b"\x08\0\x05\0\0\0\0\0" + b"\x08\0\x40\x11\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff" * 16_000,
    ],
    ids=["empty", "zeros", "text", "magic alone", "noise", "deflated noise", "deep"],
)
def test_what_is_no_header_is_none(body: bytes) -> None:
    """No error of pydicom's comes through."""
    assert read_header(body) is None


def test_a_deflated_bomb_is_unpacked_up_to_a_bound() -> None:
    """The values in front are read, the gigabyte behind them is not."""
    plain = written(dataset(PixelData=None))
    start = plain.index(b"\x08\x00\x05\x00CS")
    bomb = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    data = bomb.compress(plain[start:] + b"\x60\x00\x00\x30OW\0\0\xff\xff\xff\x7f" + bytes(INFLATED_BYTES * 30))
    meta = written(dataset(), DeflatedExplicitVRLittleEndian)
    end = 144 + int.from_bytes(meta[140:144], "little")
    header = read_header((meta[:end] + data + bomb.flush())[:HEAD_BYTES])
    assert header is not None
    assert header.columns["patient_id"] == "P-1"
