"""Reading DICOM headers by ranges: right, with few bytes, and never with an exception."""

from __future__ import annotations

import struct
import warnings
import zlib
from functools import cache
from typing import TYPE_CHECKING, Any

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

from unit.ingest.dicom_objects import BITS, dataset, encoded, judge, run
from voxelmill_ingest.elements import looks_like_dicom
from voxelmill_ingest.findings import Instance, Refusal
from voxelmill_ingest.header import read_dicom
from voxelmill_ingest.inspection import inspect
from voxelmill_ingest.ranges import FIRST_READ, Window
from voxelmill_ingest.reasons import Reason
from voxelmill_shared.events import ObjectRef

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def real_files(data: Path) -> Iterator[Path]:
    """Give the files that are DICOM by their first bytes."""
    for path in sorted(data.rglob("*")):
        if path.is_file() and looks_like_dicom(path.read_bytes()[:FIRST_READ]):
            yield path


def test_every_value_is_the_one_that_pydicom_reads(data: Path) -> None:
    compared = 0
    for path in real_files(data):
        body = path.read_bytes()
        found = judge(body)
        if not isinstance(found, Instance):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns of what it mends in old files
            ds = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            ours = (found.sop_class_uid, found.sop_instance_uid, found.modality, found.rows, found.columns)
            assert ours == (
                ds.get("SOPClassUID") or ds.file_meta.MediaStorageSOPClassUID,
                ds.get("SOPInstanceUID") or ds.file_meta.MediaStorageSOPInstanceUID,
                ds.get("Modality", ""),
                ds.Rows,
                ds.Columns,
            ), path.name
            if ds.get("SeriesInstanceUID"):
                assert (found.study_instance_uid, found.series_instance_uid) == (
                    ds.StudyInstanceUID,
                    ds.SeriesInstanceUID,
                )
            assert found.frames == int(ds.get("NumberOfFrames") or 1)
            assert found.instance_number == ds.get("InstanceNumber")
            position, orientation = ds.get("ImagePositionPatient"), ds.get("ImageOrientationPatient")
            assert found.position == (tuple(map(float, position)) if position else None)
            assert found.orientation == (tuple(map(float, orientation)) if orientation else None)
        compared += 1
    assert compared > 300


def test_few_bytes_are_read(data: Path) -> None:
    read, stored, files = 0, 0, 0
    for path in sorted((data / "ct_chest_lidc0314_2mm_j2k").iterdir())[:20]:
        body = path.read_bytes()
        read += run(read_dicom(Window(len(body))), body)[1]
        stored += len(body)
        files += 1
    assert read == files * FIRST_READ
    assert read < stored / 8


def test_a_large_element_before_the_pixels_is_jumped_over() -> None:
    ds = dataset()
    ds.add_new(0x00290010, "LO", "PRIVATE")
    ds.add_new(0x00291010, "OB", bytes(5 << 20))
    body = encoded(ds)
    found, read = run(read_dicom(Window(len(body))), body)
    assert isinstance(found, Instance)
    assert read < 32 << 10


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.33", "PixelData": None}, Reason.NOT_AN_IMAGE),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, Reason.NOT_AN_IMAGE),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1", "PixelData": None}, Reason.NOT_AN_IMAGE),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, Reason.LOCALIZER),
        ({"StudyInstanceUID": ""}, None),
        ({"SeriesInstanceUID": "", "FrameOfReferenceUID": None}, Reason.MISSING_SERIES_INSTANCE_UID),
        ({"SeriesInstanceUID": ""}, None),
        (
            {"SeriesInstanceUID": "", "StudyInstanceUID": "", "FrameOfReferenceUID": None},
            Reason.MISSING_STUDY_INSTANCE_UID,
        ),
        ({"SOPInstanceUID": ""}, None),
        ({"PixelData": None}, Reason.NO_PIXEL_DATA),
        ({"Rows": 0}, Reason.NO_PIXEL_DATA),
        ({"Rows": 5}, Reason.TRUNCATED),
        ({"NumberOfFrames": 2}, Reason.TRUNCATED),
        ({"BitsAllocated": 0}, Reason.INVALID_HEADER),
        ({"Rows": 65535, "Columns": 65535, "NumberOfFrames": 10000}, Reason.IMPLAUSIBLE_SIZE),
        ({**BITS[1], "Rows": 16, "Columns": 24}, None),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", **BITS[8]}, Reason.TRUNCATED),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422", **BITS[8]}, None),
    ],
)
def test_what_is_wrong_is_said(values: dict[str, Any], reason: Reason | None) -> None:
    found = judge(encoded(dataset(**values)))
    assert (found.reason if isinstance(found, Refusal) else None) == reason


@pytest.mark.parametrize("uid", ["1.2.x", "1..2", "1.2.", "9" * 65, "../../x"])
def test_a_malformed_uid_is_refused(uid: str) -> None:
    place = b"9.8.7" * 12
    element = struct.pack("<HH2sH", 0x20, 0xE, b"UI", len(place))
    malformed = uid.encode() + b"\0" * (len(uid) % 2)
    replacement = struct.pack("<HH2sH", 0x20, 0xE, b"UI", len(malformed)) + malformed
    body = encoded(dataset(SeriesInstanceUID=place.decode()))
    found = judge(body.replace(element + place, replacement))
    assert isinstance(found, Refusal)
    assert found.reason is Reason.INVALID_UID


def test_substitute_uids_are_the_same_for_all_instances_of_a_series() -> None:
    values = {"SeriesInstanceUID": "", "StudyInstanceUID": "", "FrameOfReferenceUID": "1.2.7", "SeriesNumber": 4}
    first, second, other = (
        judge(encoded(dataset(**values, **more)))
        for more in ({"SOPInstanceUID": "1.1"}, {"SOPInstanceUID": "1.2"}, {"SeriesTime": "120000"})
    )
    assert first.series_instance_uid == second.series_instance_uid != other.series_instance_uid
    assert first.study_instance_uid == second.study_instance_uid == other.study_instance_uid
    assert isinstance(first, Instance)
    assert len(first.warnings) == 2


@pytest.mark.parametrize("cut", [1, 47])
def test_missing_pixel_bytes_are_found_by_the_size_alone(cut: int) -> None:
    body = encoded(dataset())
    found = judge(body, len(body) - cut)
    assert isinstance(found, Refusal)
    assert found.reason is Reason.TRUNCATED


def test_an_object_that_is_cut_anywhere_is_never_taken(data: Path) -> None:
    body = (data / "transfer_syntaxes" / "MR_small_bigendian.dcm").read_bytes()
    for size in [*range(200, 1600, 37), len(body) - 1]:
        assert isinstance(judge(body[:size]), Refusal), size


def test_encapsulated_pixels_need_a_fragment_for_each_frame() -> None:
    ds = dataset(NumberOfFrames=100)
    ds.PixelData = pydicom.encaps.encapsulate([bytes(10)], has_bot=False)
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    found = judge(encoded(ds, JPEG2000Lossless))
    assert isinstance(found, Refusal)
    assert found.reason is Reason.TRUNCATED


def test_a_tiny_file_that_claims_a_huge_image_costs_nothing() -> None:
    head = b"\0" * 128 + b"DICM"
    elements = b"".join(struct.pack("<HH2sHH", 0x28, element, b"US", 2, 65535) for element in (0x10, 0x11))
    found, read = run(read_dicom(Window(len(head + elements))), head + elements)
    assert isinstance(found, Refusal)
    assert read == len(head + elements)


def test_sequences_nested_a_hundred_thousand_deep_are_walked_without_recursion() -> None:
    opening = struct.pack("<HH2sHL", 0x8, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    body = b"\0" * 128 + b"DICM" + opening * 100_000
    found = judge(body)
    assert isinstance(found, Refusal)
    assert found.reason is Reason.TRUNCATED


def test_a_deflated_header_that_inflates_without_end_is_given_up() -> None:
    meta = encoded(dataset(), ExplicitVRLittleEndian)
    start = meta.index(b"\x08\x00\x16\x00")
    head = meta[:start].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    head = head.replace(struct.pack("<HH2sH", 2, 0x10, b"UI", 20), struct.pack("<HH2sH", 2, 0x10, b"UI", 22))
    zeros = struct.pack("<HH2sHL", 0x8, 0x9, b"OB", 0, 0xFFFFFFF0) + bytes(200 << 20)
    packer = zlib.compressobj(9, wbits=-15)
    found = judge(head + packer.compress(zeros) + packer.flush())
    assert isinstance(found, Refusal)
    assert found.reason is Reason.INVALID_HEADER


def test_nested_values_are_not_taken_for_those_of_the_object() -> None:
    inner = Dataset()
    inner.SOPInstanceUID, inner.Rows = "9.9.9", 99
    ds = dataset()
    ds.ReferencedImageSequence = Sequence([inner])
    ds["ReferencedImageSequence"].is_undefined_length = True
    found = judge(encoded(ds))
    assert isinstance(found, Instance)
    assert (found.sop_instance_uid, found.rows) == ("1.2.3", 4)


@cache
def _samples(data: Path) -> list[bytes]:
    names = [
        "transfer_syntaxes/MR_small_bigendian.dcm",
        "transfer_syntaxes/image_dfl.dcm",
        "transfer_syntaxes/emri_small_RLE.dcm",
        "transfer_syntaxes/CT_small.dcm",
        "broken/nested_priv_SQ.dcm",
        "broken/UN_sequence.dcm",
        "broken/ExplVR_BigEndNoMeta.dcm",
        "nonimage/rtplan.dcm",
        "nonimage/rtstruct.dcm",
        "dicomdir/pydicom_dicomdirtests/DICOMDIR",
        "nifti/nibabel/anatomical.nii",
        "nifti/nibabel/example_nifti2.nii.gz",
    ]
    return [(data / name).read_bytes()[:60_000] for name in names]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    choice=st.integers(0, 11),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=6),
    keep=st.floats(0.02, 1),
)
def test_mutated_bytes_give_an_answer_and_never_an_exception(
    data: Path, choice: int, changes: list[tuple[float, bytes]], keep: float
) -> None:
    body = bytearray(_samples(data)[choice])
    for place, replacement in changes:
        # Half of all changes fall into the first kilobyte, where the header is.
        offset = int(place * 2 * min(1024, len(body))) if place < 0.5 else int((place * 2 - 1) * len(body))
        body[offset : offset + len(replacement)] = replacement
    content = bytes(body[: int(len(body) * keep)])
    reference = ObjectRef(bucket="inbox", key="a", etag="0" * 32, size=len(content))
    found, read = run(inspect(reference), content)
    assert isinstance(found, Instance | Refusal) or found
    assert read <= 2 * len(content) + FIRST_READ  # what the walker gives up pydicom reads from its beginning
