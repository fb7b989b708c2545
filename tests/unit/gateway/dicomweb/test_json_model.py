"""The DICOM JSON Model, with pydicom's as the referee."""

from __future__ import annotations

import json
import math
from io import BytesIO

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, Sequence
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from voxelmill_gateway.dicomweb.json_model import bulk_bytes, to_json
from voxelmill_gateway.dicomweb.parsing import read_header

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

ASCII = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="\\^="), min_size=1, max_size=16
)
UNICODE = st.text("äöü Éñ 山田太郎 Дми", min_size=1, max_size=10).map(str.strip).filter(bool)
NAMES = st.builds(lambda *groups: "=".join(groups), ASCII, UNICODE, UNICODE) | UNICODE | ASCII


def several(values):
    return st.lists(values, min_size=1, max_size=3)


VALUES = {
    "PatientName": NAMES,
    "PatientID": ASCII | UNICODE,
    "OtherPatientNames": several(NAMES),
    "PatientComments": UNICODE | ASCII,
    "ImageType": several(st.from_regex(r"[A-Z0-9_][A-Z0-9_ ]{0,13}[A-Z]", fullmatch=True)),
    "StudyDate": st.dates().map(lambda day: f"{day:%Y%m%d}".zfill(8)),
    "PixelSpacing": several(st.decimals(-99999, 99999, allow_nan=False, places=3).map(str)),
    "SeriesNumber": st.integers(-(2**31), 2**31 - 1).map(str),
    "Rows": st.integers(0, 65535),
    "SmallestImagePixelValue": st.integers(0, 32767),
    "ReferencedFrameNumbers": several(st.integers(0, 65535)),
    "RecommendedDisplayFrameRateInFloat": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "DiffusionBValue": st.floats(allow_nan=False, allow_infinity=False),
    "FrameIncrementPointer": several(st.integers(0x00080000, 0x7FDFFFFF)),
    "SOPInstanceUID": st.from_regex(r"1(\.[1-9][0-9]{0,5}){1,6}", fullmatch=True),
    "ICCProfile": st.binary(min_size=2, max_size=3000).map(lambda value: value + bytes(len(value) % 2)),
}


@st.composite
def data_sets(draw, depth=2):
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword in draw(st.sets(st.sampled_from(sorted(VALUES)), max_size=8)):
        if keyword in pydicom.datadict.keyword_dict:
            setattr(dataset, keyword, draw(VALUES[keyword]))
    for keyword in draw(st.sets(st.sampled_from(["StudyID", "AccessionNumber", "WindowCenter"]))):
        setattr(dataset, keyword, None)
    if depth and draw(st.booleans()):
        dataset.ReferencedStudySequence = Sequence(draw(st.lists(data_sets(depth - 1), max_size=2)))
    return dataset


def file_of(dataset, syntax):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2", "1.2.3"
    dataset.file_meta = meta
    body = BytesIO()
    dataset.save_as(body, enforce_file_format=True)
    return body.getvalue()


def place(path):
    return "/".join(path)


@settings(max_examples=60, deadline=None)
@given(data_sets(), st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]))
def test_what_pydicom_reads_from_it_is_the_data_set(dataset, syntax):
    """From bytes to JSON by us, and from JSON by pydicom, gives the data set that pydicom reads from the bytes."""
    body = file_of(dataset, syntax)
    read = pydicom.dcmread(BytesIO(body))
    found = json.loads(json.dumps(to_json(read, place)))

    def bulk(_tag, _vr, uri):
        return bulk_bytes(pydicom.dcmread(BytesIO(body)), uri.split("/"))

    again = Dataset.from_json(found, bulk)
    assert again == Dataset.from_json(read.to_json_dict())
    assert list(found) == sorted(found)


@settings(max_examples=30, deadline=None)
@given(data_sets())
def test_quick_and_slow_ways_agree(dataset):
    """Elements that are converted from their bytes are as those that go through pydicom's data elements."""
    read = pydicom.dcmread(BytesIO(file_of(dataset, ExplicitVRLittleEndian)))
    quick = to_json(read, place)
    for element in read.iterall():
        element.value  # noqa: B018 - no element is raw any more
    assert to_json(read, place) == quick


def test_empty_values_numbers_and_names():
    """Empty values are null, numbers are numbers, and what JSON cannot say stands as text (PS3.18 F.2.3, F.2.5).

    Spaces around a code string mean nothing (PS3.5 6.2).
    """
    dataset = Dataset()
    dataset.add_new(0x00080008, "CS", "ORIGINAL\\\\ AXIAL ")
    dataset.add_new(0x00100010, "PN", "Yamada^Tarou=山田^太郎=")
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.add_new(0x00189087, "FD", [1.5, math.nan, math.inf])
    dataset.add_new(0x00281050, "DS", "+1.50\\-0\\1e3")
    dataset.add_new(0x00200013, "IS", "0012")
    dataset.add_new(0x00080110, "SQ", [])
    found = to_json(pydicom.dcmread(BytesIO(file_of(dataset, ExplicitVRLittleEndian))), place)
    assert found["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}
    assert found["00080008"]["Value"] == ["ORIGINAL", None, "AXIAL"]
    assert found["00100010"]["Value"] == [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎"}]
    assert found["00189087"]["Value"] == [1.5, "NaN", "Infinity"]
    assert found["00281050"]["Value"] == [1.5, 0, 1000.0]
    assert found["00200013"]["Value"] == [12]
    assert found["00080110"] == {"vr": "SQ"}


@pytest.mark.data
def test_texts_of_many_alphabets(data):
    """Names in the character sets of the world are the Unicode that pydicom reads."""
    files = sorted((data / "charsets").glob("*.dcm"))
    assert len(files) > 10
    for path in files:
        metadata = json.loads(read_header(path, path.stat().st_size).metadata)
        name = pydicom.dcmread(path).get("PatientName")
        if name:
            groups = metadata["00100010"]["Value"][0]
            assert list(groups.values()) == [group for group in map(str, name.components) if group], path.name


def test_what_cannot_be_read_keeps_its_bytes():
    """An element whose bytes make no value of its kind stands there as bytes; the others are read all the same."""
    dataset = Dataset()
    dataset.PatientID = "x"
    body = file_of(dataset, ExplicitVRLittleEndian)
    broken = body + b"\x28\x00\x10\x00US\x03\x00abc"
    found = json.loads(read_header(broken, len(broken)).metadata)
    assert found["00280010"] == {"vr": "UN", "InlineBinary": "YWJj"}
    assert found["00100020"]["Value"] == ["x"]
