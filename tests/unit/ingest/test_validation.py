"""Every reason that an object itself can give, and every warning, each with an object that has it."""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
)

from unit.ingest.dicom_objects import BITS, dataset, encoded, judge
from voxelmill_ingest.cautions import Caution
from voxelmill_ingest.findings import Instance, Refusal
from voxelmill_ingest.reasons import Reason

STORAGE = "1.2.840.10008.5.1.4.1.1."
MR = {"SOPClassUID": f"{STORAGE}4", "Modality": "MR", "RescaleSlope": None, "RescaleIntercept": None}
PET = {"SOPClassUID": f"{STORAGE}128", "Modality": "PT"}
US = {"SOPClassUID": f"{STORAGE}6.1", "Modality": "US", "RescaleSlope": None, "RescaleIntercept": None}
BARE = dict.fromkeys(
    ("ImageType", "FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
)


def warned(body: bytes) -> list[str]:
    found = judge(body)
    assert isinstance(found, Instance), found
    return [warning.partition(":")[0] for warning in found.warnings]


def refused(body: bytes) -> Reason:
    found = judge(body)
    assert isinstance(found, Refusal), found
    return found.reason


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("values", [{}, MR, PET | {"Units": "BQML"}, US | BARE], ids=["CT", "MR", "PET", "US"])
def test_a_sound_object_has_no_warning(values: dict[str, Any], syntax: str) -> None:
    """An ultrasound image needs no place in space."""
    assert warned(encoded(dataset(**values), syntax)) == []


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"BitsStored": 17}, Reason.CONTRADICTORY_PIXELS),
        ({"BitsStored": 0}, Reason.CONTRADICTORY_PIXELS),
        ({"HighBit": 16}, Reason.CONTRADICTORY_PIXELS),
        ({"HighBit": 10}, Reason.CONTRADICTORY_PIXELS),
        ({"PixelRepresentation": 2}, Reason.CONTRADICTORY_PIXELS),
        ({"PhotometricInterpretation": "RGB"}, Reason.CONTRADICTORY_PIXELS),
        ({"SamplesPerPixel": 3}, Reason.CONTRADICTORY_PIXELS),
        ({"SamplesPerPixel": 2, "PhotometricInterpretation": None}, Reason.CONTRADICTORY_PIXELS),
        ({"SamplesPerPixel": None, "PhotometricInterpretation": "YBR_FULL"}, Reason.CONTRADICTORY_PIXELS),
        ({"BitsAllocated": 12}, Reason.UNSUPPORTED_PIXELS),
        ({"SamplesPerPixel": 4, "PhotometricInterpretation": "CMYK", **BITS[8]}, Reason.UNSUPPORTED_PIXELS),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "HSV", **BITS[8]}, Reason.UNSUPPORTED_PIXELS),
        ({"SOPClassUID": f"{STORAGE}4.2", "PixelData": None}, Reason.NOT_AN_IMAGE),
        ({"SOPClassUID": "1.2.840.10008.1.9", "PixelData": None}, Reason.NOT_AN_IMAGE),
        ({"FileSetID": "DISC"}, Reason.DICOMDIR),
    ],
)
def test_what_contradicts_itself_is_refused(values: dict[str, Any], reason: Reason) -> None:
    assert refused(encoded(dataset(**values))) is reason


@pytest.mark.parametrize(
    ("values", "cautions"),
    [
        ({"StudyInstanceUID": ""}, [Caution.MADE_STUDY_INSTANCE_UID]),
        ({"SeriesInstanceUID": ""}, [Caution.MADE_SERIES_INSTANCE_UID]),
        ({"StudyInstanceUID": "1.0.3"}, []),
        ({"SpecificCharacterSet": "LATIN1"}, [Caution.UNKNOWN_CHARACTER_SET]),
        ({"BitsStored": None, "HighBit": None}, [Caution.MISSING_PIXEL_DESCRIPTION]),
        ({"PixelRepresentation": None}, [Caution.MISSING_PIXEL_DESCRIPTION]),
        ({"SamplesPerPixel": None}, [Caution.MISSING_PIXEL_DESCRIPTION]),
        ({"PhotometricInterpretation": None}, [Caution.MISSING_PIXEL_DESCRIPTION]),
        ({"NumberOfFrames": "0"}, [Caution.MISSING_PIXEL_DESCRIPTION]),
        ({"HighBit": 15}, [Caution.UNUSUAL_HIGH_BIT]),
        ({"PhotometricInterpretation": "MONOCHROME"}, [Caution.UNKNOWN_PHOTOMETRIC_INTERPRETATION]),
        ({"PixelData": bytes(50)}, [Caution.SURPLUS_PIXELS]),
        ({"LossyImageCompression": "01"}, [Caution.LOSSY_COMPRESSION]),
        ({"LossyImageCompression": "00"}, []),
        ({"Modality": "MR"}, [Caution.MODALITY_MISMATCH]),
        ({"Modality": None}, [Caution.MODALITY_MISMATCH]),
        ({"ImageType": None}, [Caution.MISSING_IMAGE_TYPE]),
        ({"ImagePositionPatient": None}, [Caution.MISSING_POSITION]),
        ({"ImageOrientationPatient": ""}, [Caution.MISSING_POSITION]),
        ({"ImagePositionPatient": [1, 2]}, [Caution.INVALID_POSITION]),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, [Caution.INVALID_POSITION]),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, [Caution.INVALID_POSITION]),
        ({"ImageOrientationPatient": [0.8660, 0.5, 0, -0.5, 0.8660, 0]}, []),
        ({"PixelSpacing": None}, [Caution.MISSING_PIXEL_SPACING]),
        ({"PixelSpacing": [0.7, 0]}, [Caution.INVALID_PIXEL_SPACING]),
        (US | {"PixelSpacing": [0.7, -1]}, [Caution.INVALID_PIXEL_SPACING]),
        ({"FrameOfReferenceUID": None}, [Caution.MISSING_FRAME_OF_REFERENCE]),
        ({"RescaleSlope": None, "RescaleIntercept": None}, [Caution.MISSING_RESCALE] * 2),
        ({"RescaleSlope": 0}, [Caution.INVALID_RESCALE]),
        (PET, [Caution.MISSING_UNITS]),
        (PET | {"Units": "BQML", "RescaleIntercept": None}, [Caution.MISSING_RESCALE]),
        (MR | {"PixelSpacing": None}, [Caution.MISSING_PIXEL_SPACING]),
    ],
)
def test_what_is_odd_is_said(values: dict[str, Any], cautions: list[Caution]) -> None:
    assert warned(encoded(dataset(**values))) == [caution.value for caution in cautions]


def test_a_modality_lut_stands_for_slope_and_intercept() -> None:
    item = pydicom.Dataset()
    item.ModalityLUTType = "HU"
    values = {"RescaleSlope": None, "RescaleIntercept": None, "ModalityLUTSequence": Sequence([item])}
    assert warned(encoded(dataset(**values))) == []


@pytest.mark.parametrize("undefined", [True, False])
def test_an_enhanced_image_needs_its_functional_groups(undefined: bool) -> None:
    ds = dataset(SOPClassUID=f"{STORAGE}2.1", NumberOfFrames=1, **(BARE | {"ImageType": ["ORIGINAL"]}))
    ds.FrameOfReferenceUID = "1.2.7"
    assert warned(encoded(ds)) == ["missing-functional-groups"] * 2
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        item = pydicom.Dataset()
        item.FrameContentSequence = Sequence([pydicom.Dataset()])
        setattr(ds, keyword, Sequence([item]))
        ds[keyword].is_undefined_length = undefined
    assert warned(encoded(ds)) == []


def test_a_transfer_syntax_that_the_bytes_contradict_is_said() -> None:
    body = encoded(dataset(), ExplicitVRLittleEndian)
    old, new = (struct.pack("<HH2sH", 2, 0x10, b"UI", 20) + uid for uid in (b"1.2.840.10008.1.2.1\0", bytes(20)))
    implicit = b"1.2.840.10008.1.2\0\0\0"
    assert warned(body.replace(old, new[:8] + implicit)) == ["contradicted-transfer-syntax"]
    assert warned(body.replace(old, new)) == ["assumed-transfer-syntax"]


def test_a_frame_of_reference_that_is_no_uid_is_said() -> None:
    body = encoded(dataset(FrameOfReferenceUID="1.20.35"))
    assert warned(body.replace(b"1.20.35", b"1.A0.35")) == ["missing-frame-of-reference"]


def test_a_uid_with_a_leading_zero_is_said() -> None:
    body = encoded(dataset(StudyInstanceUID="1.20.34"))
    assert warned(body.replace(b"1.20.34", b"1.02.34")) == ["uid-leading-zero"]


def test_an_instance_number_that_is_none_is_left_out() -> None:
    number = struct.pack("<HH2sH", 0x20, 0x13, b"IS", 2)
    body = encoded(dataset()).replace(number + b"7 ", number + b"7A")
    assert warned(body) == ["invalid-instance-number"]
    assert judge(body).model_dump()["instance_number"] is None


def test_meta_information_of_another_object_is_said() -> None:
    ds = dataset()
    body = encoded(ds)
    place = struct.pack("<HH2sH", 8, 0x18, b"UI", 6)
    assert warned(body.replace(place + b"1.2.3\0", place + b"1.2.4\0")) == ["meta-mismatch"]


def test_a_name_that_is_not_in_its_character_set_is_said() -> None:
    body = encoded(dataset(SpecificCharacterSet="ISO_IR 192", PatientName="XXXX"))
    assert warned(body.replace(b"XXXX", b"\xfcber")) == ["undecodable-text"]


def compressed(frames: list[bytes], table: bool = True, syntax: str = JPEG2000Lossless, **values: Any) -> bytes:
    ds = dataset(NumberOfFrames=len(frames), **values)
    ds.PixelData = encapsulate(frames, has_bot=table)
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return encoded(ds, syntax)


FRAMES = [bytes([n]) * 100 for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("table", [True, False])
def test_sound_fragments_are_taken(table: bool) -> None:
    assert warned(compressed(FRAMES, table)) == []
    assert warned(compressed(FRAMES[:1], table)) == []


def test_jpeg_baseline_has_always_lost_something() -> None:
    assert warned(compressed(FRAMES[:1], syntax=JPEGBaseline8Bit)) == ["lossy-compression"]


def _table(*offsets: int) -> bytes:
    return struct.pack("<HHL", 0xFFFE, 0xE000, 4 * len(offsets)) + struct.pack(f"<{len(offsets)}L", *offsets)


RIGHT = _table(0, 108, 216, 324)


@pytest.mark.parametrize(
    "wrong",
    [
        _table(0, 108, 216),
        _table(0, 108, 216, 324, 432),
        _table(8, 108, 216, 324),
        _table(0, 216, 108, 324),
        _table(0, 50, 216, 324),
        RIGHT[:4] + struct.pack("<L", 14) + RIGHT[8:],
        b"\xfe\xff\xdd\xe0" + RIGHT[4:],
        struct.pack("<HHL", 0x7FE0, 0x0011, 16) + RIGHT[8:],
    ],
    ids=["short", "long", "start", "order", "inside", "length", "delimiter", "no item"],
)
def test_an_offset_table_that_contradicts_several_frames_is_refused(wrong: bytes) -> None:
    body = compressed(FRAMES)
    assert body.count(RIGHT) == 1
    assert refused(body.replace(RIGHT, wrong)) is Reason.INVALID_FRAGMENTS


def test_an_offset_table_of_a_single_frame_is_not_needed() -> None:
    body = compressed(FRAMES[:1])
    assert warned(body.replace(_table(0), _table(8))) == ["odd-offset-table"]


def test_what_stands_in_the_place_of_the_first_fragment_is_refused() -> None:
    body = compressed(FRAMES)
    place = body.index(RIGHT) + len(RIGHT)
    for head in (struct.pack("<HHL", 0xFFFE, 0xE0DD, 0), struct.pack("<HHL", 0x7FE1, 0x0010, 100)):
        assert refused(body[:place] + head + body[place + 8 :]) is Reason.INVALID_FRAGMENTS


@pytest.mark.parametrize("frames", [FRAMES, FRAMES[:1]], ids=["four frames", "one frame"])
def test_compressed_pixels_that_are_cut_are_found_without_reading_them(frames: list[bytes]) -> None:
    """By the first fragment's length, and by where the table says that the last one begins."""
    body = compressed(frames)
    place = body.index(frames[-1])
    last = place - 1 if len(frames) > 1 else len(body) - 60
    for size in (body.index(frames[0]) - 12, body.index(frames[0]) - 4, last):
        assert refused(body[:size]) is Reason.TRUNCATED, size


def _extended(**changes: bytes) -> bytes:
    values, offsets, lengths = encapsulate_extended(FRAMES)
    ds = dataset(NumberOfFrames=len(FRAMES))
    ds.PixelData = values
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.ExtendedOffsetTable = changes.get("offsets", offsets)
    ds.ExtendedOffsetTableLengths = changes.get("lengths", lengths)
    return encoded(ds, JPEG2000Lossless)


def test_an_extended_offset_table_has_an_entry_for_each_frame() -> None:
    assert warned(_extended()) == []
    for changes in ({"offsets": bytes(24)}, {"lengths": bytes(40)}):
        assert refused(_extended(**changes)) is Reason.INVALID_FRAGMENTS
    far = struct.pack("<4Q", 0, 108, 216, 1 << 40)
    assert refused(_extended(offsets=far)) is Reason.TRUNCATED


def test_a_basic_and_an_extended_offset_table_exclude_each_other() -> None:
    empty = struct.pack("<HHL", 0xFFFE, 0xE000, 0)
    assert refused(_extended().replace(empty, RIGHT)) is Reason.INVALID_FRAGMENTS


def test_every_encoding_that_can_be_decoded_is_taken(data: Path) -> None:
    files = sorted((data / "transfer_syntaxes" / "ct_matrix").iterdir())
    found = {judge(path.read_bytes()).model_dump().get("transfer_syntax_uid") for path in files}
    assert {f"CTImage_{syntax}.dcm" for syntax in found} == {path.name for path in files}


def test_a_video_or_private_encoding_is_refused() -> None:
    body = encoded(dataset())
    old = b"1.2.840.10008.1.2.1\0"
    assert refused(body.replace(old, b"1.2.840.10008.9.9.9\0")) is Reason.UNSUPPORTED_TRANSFER_SYNTAX


def test_every_warning_about_one_object_stands_in_a_test() -> None:
    """Those about a series have tests of their own, and so has what is left to pydicom."""
    elsewhere = {
        *(Caution.SEVERAL_PATIENTS, Caution.SEVERAL_FRAMES_OF_REFERENCE, Caution.SEVERAL_MODALITIES),
        Caution.UNUSUAL_ENCODING,
    }
    tests = Path(__file__).read_text()
    untested = [
        one for one in Caution if one not in elsewhere and one.name not in tests and f'"{one.value}"' not in tests
    ]
    assert untested == []


@pytest.mark.parametrize(
    ("element", "media", "reason"),
    [
        ("SOPInstanceUID", "MediaStorageSOPInstanceUID", Reason.MISSING_SOP_INSTANCE_UID),
        ("SOPClassUID", "MediaStorageSOPClassUID", Reason.MISSING_SOP_CLASS_UID),
    ],
)
def test_what_neither_the_data_set_nor_its_meta_information_names_is_refused(
    element: str, media: str, reason: Reason
) -> None:
    with_meta = pydicom.dcmread(io.BytesIO(encoded(dataset())))
    delattr(with_meta, element)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, with_meta)
    assert isinstance(judge(buffer.getvalue()), Instance)
    delattr(with_meta.file_meta, media)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, with_meta)
    assert refused(buffer.getvalue()) is reason


def test_every_reason_stands_in_a_test() -> None:
    """By its name, which a test that expects it has to write."""
    tests = "".join(path.read_text() for path in sorted(Path(__file__).parents[2].rglob("test_*.py")))
    untested = [
        one for one in Reason if f"Reason.{one.name}" not in tests and not re.search(f'"{one.value}[":]', tests)
    ]
    assert untested == []
