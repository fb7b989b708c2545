"""The DICOM Segmentation, read back by pydicom and highdicom."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless, SegmentationStorage

from conftest import missing
from unit.segment.torso import series_task, torso, write_series
from voxelmill_segment.dicom_seg import write_dicom_seg
from voxelmill_segment.equipment import SegType
from voxelmill_segment.labels import AIRWAYS, BONES, LUNG_LEFT
from voxelmill_segment.segmenter import LabelMap
from voxelmill_shared.imaging.series import read_series

if TYPE_CHECKING:
    from pathlib import Path

    from voxelmill_shared.imaging.volume import Volume

SEGMENTS = (LUNG_LEFT, AIRWAYS, BONES)


def small(shear: float = 0.0) -> Volume:
    volume = torso()
    affine = volume.affine.copy()
    affine[1, 2] = shear
    return replace(volume, voxels=np.ascontiguousarray(volume.voxels[20:32]), affine=affine)


def labelled(volume: Volume) -> LabelMap:
    labels = np.zeros(volume.voxels.shape, np.uint8)
    labels[2:7, 30:50, 70:90] = LUNG_LEFT.number
    labels[3:11, 55:60, 40:70] = BONES.number
    return LabelMap(labels, volume.affine, SEGMENTS)


def written(
    tmp_path: Path, *, shear: float = 0.0, kind: SegType = SegType.LABELMAP, **attributes: object
) -> tuple[Path, LabelMap, Volume]:
    paths = write_series(tmp_path / "in", small(shear), **attributes)
    shuffled = paths[5:] + paths[:5]
    volume = read_series(shuffled)
    label_map = labelled(volume)
    path = tmp_path / "seg.dcm"
    assert write_dicom_seg(path, label_map, volume, series_task(shuffled, tmp_path), "threshold 1", kind)
    return path, label_map, volume


@pytest.mark.parametrize("kind", SegType)
def test_what_is_written_is_read_back(tmp_path: Path, kind: SegType) -> None:
    """Frames, positions, names, codes and colours; the empty segment is left out.

    A LABELMAP has the label map's own numbers, a BINARY numbers without gaps.
    """
    path, label_map, volume = written(tmp_path, kind=kind)
    seg = hd.seg.segread(path)
    assert (seg.SegmentationType, seg.BitsAllocated) == (("LABELMAP", 8) if kind is SegType.LABELMAP else ("BINARY", 1))
    described = {n: seg.get_segment_description(n) for n in seg.segment_numbers if n}
    assert [one.segment_label for one in described.values()] == ["lung_left", "bones"]
    numbers = [LUNG_LEFT.number, BONES.number] if kind is SegType.LABELMAP else [1, 2]
    assert list(described) == numbers
    read = seg.get_volume(combine_segments=True, **({} if kind is SegType.LABELMAP else {"skip_overlap_checks": False}))
    expected = np.zeros_like(label_map.labels)
    for segment, number in zip((LUNG_LEFT, BONES), numbers, strict=True):
        expected[label_map.labels == segment.number] = number
    for k in range(read.array.shape[0]):
        first = read.affine @ (k, 0, 0, 1)
        slice_ = round(float((first[2] - volume.affine[2, 3]) / volume.affine[2, 2]))
        np.testing.assert_allclose(first[:3], volume.affine[:3, 3] + slice_ * volume.affine[:3, 2], atol=1e-3)
        np.testing.assert_array_equal(read.array[k], expected[slice_])
    lung = described[numbers[0]]
    assert lung.SegmentedPropertyTypeCodeSequence[0].CodeValue == "39607008"
    modifier = lung.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
    assert (modifier.CodeValue, modifier.CodingSchemeDesignator) == ("7771000", "SCT")
    colour = hd.color.CIELabColor.from_dicom_value(lung.RecommendedDisplayCIELabValue).to_rgb()
    np.testing.assert_allclose(colour, LUNG_LEFT.rgb, atol=2)


def test_frames_are_read_by_plain_arithmetic(tmp_path: Path) -> None:
    """Without a library for segmentations: each frame's pixels are the labels at its position, bit for bit."""
    path, label_map, volume = written(tmp_path)
    seg = pydicom.dcmread(path)
    assert seg.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.7"
    assert seg.file_meta.TransferSyntaxUID == RLELossless
    found = np.zeros_like(label_map.labels)
    for group, frame in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        height = float(group.PlanePositionSequence[0].ImagePositionPatient[2])
        found[round((height - volume.affine[2, 3]) / volume.affine[2, 2])] = frame
    np.testing.assert_array_equal(found, label_map.labels)


def test_segments_say_what_made_them_and_are_tracked(tmp_path: Path) -> None:
    """Algorithm with version and parameters; the same structure has the same tracking UID in both types."""
    paths = write_series(tmp_path / "in", small())
    volume = read_series(paths)
    facts = {"task": "total", "resolution": "fast", "weights_digest": "5" * 64, "device": "cuda:0"}
    label_map = replace(labelled(volume), facts=facts)
    uids = []
    for kind in SegType:
        path = tmp_path / f"{kind}.dcm"
        assert write_dicom_seg(path, label_map, volume, series_task(paths, tmp_path), "totalsegmentator 2.18.0", kind)
        seg = pydicom.dcmread(path)
        lung = next(one for one in seg.SegmentSequence if one.SegmentLabel == "lung_left")
        (made,) = lung.SegmentationAlgorithmIdentificationSequence
        assert (lung.SegmentAlgorithmType, lung.SegmentAlgorithmName) == ("AUTOMATIC", "totalsegmentator")
        assert (made.AlgorithmName, made.AlgorithmVersion) == ("totalsegmentator", "2.18.0")
        family = made.AlgorithmFamilyCodeSequence[0]
        assert (family.CodeValue, family.CodeMeaning) == tuple(codes.cid7162.ArtificialIntelligence)[::2]
        assert f"weights_digest={'5' * 64}" in made.AlgorithmParameters
        assert "cuda" not in made.AlgorithmParameters
        assert lung.TrackingID == "lung_left"
        tracked = [one.TrackingUID for one in seg.SegmentSequence if "TrackingUID" in one]
        assert len(set(tracked)) == 2
        uids.append((seg.SOPInstanceUID, seg.SeriesInstanceUID, *tracked))
    (one, other) = uids
    assert one[2:] == other[2:]
    assert not set(one[:2]) & set(other[:2])


@pytest.mark.parametrize("kind", SegType)
def test_labels_without_a_segment_are_left_out(tmp_path: Path, kind: SegType) -> None:
    """A label that is in no table cannot be described, so it is not written."""
    paths = write_series(tmp_path / "in", small())
    volume = read_series(paths)
    label_map = labelled(volume)
    label_map.labels[9, :5] = 200
    assert write_dicom_seg(tmp_path / "seg.dcm", label_map, volume, series_task(paths, tmp_path), "threshold 1", kind)
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    assert seg.pixel_array.max() <= BONES.number
    assert [one.SegmentLabel for one in seg.SegmentSequence if one.SegmentNumber] == ["lung_left", "bones"]


def complaints(path: Path) -> set[str]:
    """What dicom3tools says against a file, without the values that it names.

    It reads no deflated data sets and knows no label maps yet: it gets explicit ones, called a segmentation.
    """
    seg = pydicom.dcmread(path)
    if seg.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
        seg.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    seg.SOPClassUID = seg.file_meta.MediaStorageSOPClassUID = SegmentationStorage
    seg.save_as(path)
    ended = subprocess.run(["dciodvfy", path], capture_output=True, check=False)
    lines = (ended.stdout + ended.stderr).decode(errors="replace").splitlines()
    return {re.sub(r"<[^>]*>", "<>", line) for line in lines if line.startswith("Error")}


@pytest.mark.parametrize("kind", SegType)
def test_it_is_as_true_to_its_iod_as_highdicom_alone(tmp_path: Path, kind: SegType) -> None:
    """Dicom3tools finds no fault in ours that a plain segmentation of highdicom does not have."""
    if shutil.which("dciodvfy") is None:
        missing("no dciodvfy (Debian package dicom3tools)")
    path, label_map, volume = written(tmp_path, kind=kind, StudyID="1", AccessionNumber="2")
    sources = [pydicom.dcmread(p) for p in sorted((tmp_path / "in").iterdir())]
    sources.sort(key=lambda source: source.ImagePositionPatient[2])
    for source in sources:
        for keyword in ("PatientBirthDate", "PatientSex", "ReferringPhysicianName", "PositionReferenceIndicator"):
            setattr(source, keyword, "")
        source.Manufacturer, source.StudyID, source.AccessionNumber = "", "1", "2"
    structure = codes.cid7150.AnatomicalStructure
    plain = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=np.where(label_map.labels == LUNG_LEFT.number, 1, 0).astype(np.uint8),
        segmentation_type=kind.upper(),
        segment_descriptions=[
            hd.seg.SegmentDescription(1, "lung", structure, codes.SCT.Lung, "MANUAL"),
        ],
        series_instance_uid="1.2.7",
        series_number=2,
        sop_instance_uid="1.2.7.1",
        instance_number=1,
        manufacturer="T",
        manufacturer_model_name="T",
        software_versions="1",
        device_serial_number="1",
    )
    plain.save_as(tmp_path / "plain.dcm")
    assert volume.voxels.shape[0] == len(sources)
    theirs = complaints(tmp_path / "plain.dcm")
    assert not any("not found" in line.lower() for line in theirs)  # it does know what to look for
    assert complaints(path) <= theirs


def test_it_names_its_patient_study_and_sources(tmp_path: Path) -> None:
    """A viewer files it beside its series and finds the instances."""
    path, label_map, _ = written(tmp_path)
    seg = pydicom.dcmread(path)
    assert (seg.PatientID, seg.StudyInstanceUID, seg.FrameOfReferenceUID) == ("T1", "1.2.1", "1.2.4")
    assert seg.SeriesInstanceUID != "1.2.2"
    referenced = {item.ReferencedSOPInstanceUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert len(referenced) == len(label_map.labels)
    for group in seg.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        assert int(source.rsplit(".", 1)[1]) - 1 == round((position[2] + 900) / 4)


@pytest.mark.parametrize("kind", SegType)
def test_the_same_input_gives_the_same_bytes(tmp_path: Path, kind: SegType) -> None:
    """Work that is done again after a crash is not another result."""
    one, _, _ = written(tmp_path / "one", kind=kind)
    other, _, _ = written(tmp_path / "other", kind=kind)
    assert one.read_bytes() == other.read_bytes()


def test_a_tilted_gantry_keeps_its_positions(tmp_path: Path) -> None:
    """Sheared slices: every frame lies where its source lies."""
    path, label_map, volume = written(tmp_path, shear=1.2)
    assert volume.affine[1, 2] == pytest.approx(1.2)
    seg = pydicom.dcmread(path)
    planes = {
        tuple(float(v) for v in g.PlanePositionSequence[0].ImagePositionPatient)
        for g in seg.PerFrameFunctionalGroupsSequence
    }
    found = np.flatnonzero((label_map.labels > 0).any((1, 2)))
    expected = [volume.affine[:3, 3] + k * volume.affine[:3, 2] for k in found]
    np.testing.assert_allclose(sorted(planes, key=lambda p: p[2]), expected, atol=1e-3)


def test_headers_with_gaps_are_enough(tmp_path: Path) -> None:
    """Anonymised series lack what the Standard demands; the result is written all the same."""
    path, _, _ = written(tmp_path, StudyDate="", StudyTime="", FrameOfReferenceUID="", PatientID="")
    seg = pydicom.dcmread(path)
    assert seg.FrameOfReferenceUID.startswith("2.25.")
    assert seg.PatientBirthDate == ""


def references(seg: pydicom.Dataset) -> list[str]:
    (series,) = seg.ReferencedSeriesSequence
    return [str(item.ReferencedSOPInstanceUID) for item in series.ReferencedInstanceSequence]


@pytest.mark.parametrize("blank", [True, False])
def test_the_uids_are_those_that_ingest_has_given(tmp_path: Path, data: Path, *, blank: bool) -> None:
    """An anonymiser has emptied, or removed, the UIDs of these files; the catalog knows them by others."""
    paths = sorted((data / "totalseg_ct_dicom_20").iterdir())
    if not blank:
        paths = [without_uids(path, tmp_path / path.name) for path in paths]
    volume = read_series(paths)
    labels = np.zeros(volume.voxels.shape, np.uint8)
    labels[2:7, 100:120, 200:220] = BONES.number
    task = series_task(paths, tmp_path)
    path = tmp_path / "seg.dcm"
    assert write_dicom_seg(path, LabelMap(labels, volume.affine, SEGMENTS), volume, task, "threshold 1")
    seg = pydicom.dcmread(path)
    assert seg.StudyInstanceUID == task.study_instance_uid
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == task.series_instance_uid
    assert sorted(references(seg)) == sorted(task.sop_instance_uids)
    used = {
        str(group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)
        for group in seg.PerFrameFunctionalGroupsSequence
    }
    assert used == {task.sop_instance_uids[number] for number in volume.instance_order[2:7]}


def without_uids(path: Path, to: Path) -> Path:
    header = pydicom.dcmread(path)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
        if keyword in header:
            del header[keyword]
    header.save_as(to)
    return to


def test_files_without_a_preamble_are_read(tmp_path: Path) -> None:
    """Data sets from before DICOM files had a preamble: ingest takes them."""
    paths = write_series(tmp_path / "in", small())
    for path in paths:
        path.write_bytes(path.read_bytes()[132:])
    volume = read_series(paths)
    task = series_task(paths, tmp_path)
    assert write_dicom_seg(tmp_path / "seg.dcm", labelled(volume), volume, task, "threshold 1")
    assert sorted(references(pydicom.dcmread(tmp_path / "seg.dcm"))) == sorted(task.sop_instance_uids)


def test_the_class_that_ingest_names_is_referred_to(tmp_path: Path) -> None:
    """Where the file has none, the manifest's rules."""
    paths = write_series(tmp_path / "in", small(), SOPClassUID="")
    volume = read_series(paths)
    classes = ("1.2.840.10008.5.1.4.1.1.128",) * len(paths)
    task = replace(series_task(paths, tmp_path), sop_class_uids=classes)
    assert write_dicom_seg(tmp_path / "seg.dcm", labelled(volume), volume, task, "threshold 1")
    (series,) = pydicom.dcmread(tmp_path / "seg.dcm").ReferencedSeriesSequence
    assert {item.ReferencedSOPClassUID for item in series.ReferencedInstanceSequence} == set(classes)


def test_nothing_found_writes_nothing(tmp_path: Path) -> None:
    """A segmentation without frames would be no segmentation."""
    paths = write_series(tmp_path / "in", small())
    volume = read_series(paths)
    empty = LabelMap(np.zeros(volume.voxels.shape, np.uint8), volume.affine, SEGMENTS)
    assert not write_dicom_seg(tmp_path / "seg.dcm", empty, volume, series_task(paths, tmp_path), "threshold 1")
    assert not (tmp_path / "seg.dcm").exists()
