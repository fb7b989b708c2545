"""Series that hold every position more than once: divided by what tells the images apart, or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from unit.shared.imaging_files import along_z, enhanced, image, numbered, save
from voxelmill_shared.imaging import SeriesVolumes, read_volumes
from voxelmill_shared.work import UnsupportedSeriesError

if TYPE_CHECKING:
    from pathlib import Path

SLICES = 5


def item(**elements: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def write(folder: Path, elements: list[list[dict[str, Any]]], slices: int = SLICES) -> list[Path]:
    """Write `elements[volume][slice]`; the voxels say which volume (in thousands) and slice (in hundreds) they are."""
    paths = []
    for volume, own in enumerate(elements):
        for k in range(slices):
            stored = np.arange(20, dtype=np.int16).reshape(4, 5) + np.int16(1000 * volume + 100 * k)
            dataset = image(
                stored, ImagePositionPatient=list(along_z(slices)[k]), RescaleIntercept=0, Modality="MR", **own[k]
            )
            paths.append(save(dataset, folder / f"{(k * 7 + volume * 13) % 29:02d}-{volume}-{k}.dcm"))
    return sorted(paths)


def volumes_of(found: SeriesVolumes, slices: int = SLICES) -> list[int]:
    """Check that no volume mixes what belongs apart, and return which each is."""
    order = []
    for volume in found.volumes:
        which = int(volume.voxels[0, 0, 0]) // 1000
        expected = numbered(slices) // 1000 * 100 + np.arange(20, dtype=np.int16).reshape(4, 5) + 1000 * which
        np.testing.assert_array_equal(volume.voxels, expected)
        order.append(which)
    return order


def same(elements: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Let all slices of a volume have the same elements."""
    return [[one] * SLICES for one in elements]


@pytest.mark.parametrize(
    ("elements", "told"),
    [
        ([{"TemporalPositionIdentifier": n} for n in (1, 2, 10)], "TemporalPositionIdentifier 10"),
        ([{"EchoTime": ms} for ms in (4.92, 7.38)], "EchoTime 7.38"),
        ([{"EchoNumbers": n} for n in (1, 2)], "EchoNumbers 2"),
        ([{"TriggerTime": ms} for ms in (0, 40.5, 300)], "TriggerTime 300"),
        ([{"AcquisitionNumber": n} for n in (1, 2)], "AcquisitionNumber 2"),
        ([{"AcquisitionTime": f"1015{n:02d}.5"} for n in (9, 40)], "AcquisitionTime 101540.5"),
        (
            [{"ImageType": ["ORIGINAL", "PRIMARY", kind]} for kind in ("FAT", "WATER")],
            "ImageType ORIGINAL\\PRIMARY\\WATER",
        ),
        ([{"DiffusionBValue": float(b)} for b in (0, 500, 1000)], "DiffusionBValue 1000"),
        (
            [{"MRDiffusionSequence": Sequence([item(DiffusionBValue=float(b))])} for b in (0, 1000)],
            "DiffusionBValue 1000",
        ),
        ([{"ConvolutionKernel": kernel} for kernel in ("B30f", "B70f")], "ConvolutionKernel B70f"),
        (
            [{"EchoTime": ms, "TemporalPositionIdentifier": n} for n in (1, 2) for ms in (4.9, 7.4)],
            "TemporalPositionIdentifier 2, EchoTime 7.4",
        ),
        (
            [{"DiffusionBValue": 0.0}]
            + [{"DiffusionBValue": 700.0, "DiffusionGradientOrientation": list(d)} for d in np.eye(3)],
            "DiffusionGradientOrientation 1\\0\\0",
        ),
    ],
)
def test_volumes_are_told_apart_by_an_attribute(tmp_path: Path, elements: list[dict[str, Any]], told: str) -> None:
    """Each volume holds its own slices and says what distinguishes it, in the order of that."""
    found = read_volumes(write(tmp_path, same(elements)))
    order = volumes_of(found)
    assert sorted(order) == list(range(len(elements)))
    if "Orientation" not in told:
        assert order == list(range(len(elements)))
    assert found.left_out == ()
    assert told in [volume.distinction for volume in found.volumes]


def test_times_of_each_slice_are_taken_in_order(tmp_path: Path) -> None:
    """Each slice has a time of its own, and each round ends before the next begins."""
    elements = [[{"AcquisitionTime": f"10{volume:02d}{k * 7:02d}"} for k in range(SLICES)] for volume in range(3)]
    found = read_volumes(write(tmp_path, elements))
    assert volumes_of(found) == [0, 1, 2]
    assert found.volumes[1].distinction == "AcquisitionTime from 100100"


def test_times_that_overlap_tell_nothing(tmp_path: Path) -> None:
    """Slice by slice: which first image belongs to which is not said by times, and nothing is guessed."""
    elements = [[{"AcquisitionTime": f"10{k:02d}{volume * 20:02d}"} for k in range(SLICES)] for volume in range(3)]
    with pytest.raises(UnsupportedSeriesError) as error:
        read_volumes(write(tmp_path, elements))
    assert error.value.code == "repeated-positions"
    assert "holds 3 images" in error.value.reason


def test_instance_numbers_alone_are_said_to_be_so(tmp_path: Path) -> None:
    """Old time series tell their rounds by Instance Number alone: taken, with a warning."""
    elements = [[{"InstanceNumber": volume * SLICES + k + 1} for k in range(SLICES)] for volume in range(2)]
    found = read_volumes(write(tmp_path, elements))
    assert volumes_of(found) == [0, 1]
    assert all("Instance Number alone" in volume.warnings[0] for volume in found.volumes)


def test_an_interrupted_last_round_is_left_out(tmp_path: Path) -> None:
    """The scan was stopped after one slice of the third round: two volumes, and the slice is named."""
    paths = write(tmp_path, same([{"TemporalPositionIdentifier": n} for n in (1, 2, 3)]))
    kept = [path for path in paths if "-2-" not in path.name or path.name.endswith("-2-0.dcm")]
    found = read_volumes(kept)
    assert volumes_of(found) == [0, 1]
    (rest,) = found.left_out
    assert rest.distinction == "TemporalPositionIdentifier 3"
    assert [kept[number].name[-7:] for number, _ in rest.frames] == ["2-0.dcm"]


def test_copies_among_time_points_are_left_out(tmp_path: Path) -> None:
    """A file that was sent twice does not keep a time series from being divided."""
    paths = write(tmp_path, same([{"TemporalPositionIdentifier": n} for n in (1, 2)]))
    copy = tmp_path / "copy.dcm"
    copy.write_bytes(paths[3].read_bytes())
    found = read_volumes([*paths, copy])
    assert volumes_of(found) == [0, 1]
    assert all("1 identical copies" in volume.warnings[0] for volume in found.volumes)


def test_a_copy_under_another_uid_is_a_copy(tmp_path: Path) -> None:
    """The same slice with the same attributes and pixels, stored again under a new SOP Instance UID."""
    paths = write(tmp_path, same([{"AcquisitionNumber": 1}]))
    again = write_again(paths[2], tmp_path / "again.dcm")
    (volume,) = read_volumes([*paths, again]).volumes
    assert volume.warnings == ("1 identical copies of slices were left out",)


def test_an_equal_slice_at_the_same_place_is_a_copy_whatever_its_attributes_say(tmp_path: Path) -> None:
    """Stored again under another number: either of the two is right, so the volume is not refused."""
    paths = write(tmp_path, [[{"InstanceNumber": k + 1} for k in range(SLICES)]])
    again = pydicom.dcmread(paths[2])
    again.SOPInstanceUID += ".1"
    again.InstanceNumber = 77
    again.save_as(tmp_path / "again.dcm")
    found = read_volumes([*paths, tmp_path / "again.dcm"])
    assert volumes_of(found) == [0]
    assert found.volumes[0].warnings == ("1 identical copies of slices were left out",)


def write_again(path: Path, target: Path) -> Path:
    data = bytearray(path.read_bytes())
    place = data.index(b"\x08\x00\x18\x00UI") + 8
    data[place + 10 : place + 14] = b"1111"
    target.write_bytes(data)
    return target


def test_enhanced_frames_are_told_apart_by_their_dimensions(tmp_path: Path) -> None:
    """Two time points in one Enhanced file, frames shuffled, told by a private dimension index."""
    stored = np.concatenate([numbered(3), numbered(3) + 500])
    positions = along_z(3) * 2
    order = [4, 1, 3, 5, 0, 2]
    dataset = enhanced(stored, positions, order)
    dataset.DimensionIndexSequence = Sequence(
        [item(DimensionIndexPointer=0x00200032), item(DimensionIndexPointer=0x20051011)]
    )
    for group, k in zip(dataset.PerFrameFunctionalGroupsSequence, order, strict=True):
        group.FrameContentSequence = Sequence([item(DimensionIndexValues=[k % 3 + 1, k // 3 + 1])])
    found = read_volumes([save(dataset, tmp_path / "enhanced.dcm")])
    assert [volume.distinction for volume in found.volumes] == ["dimension 2 1", "dimension 2 2"]
    for n, volume in enumerate(found.volumes):
        np.testing.assert_array_equal(volume.voxels, numbered(3) - 1000 + 500 * n)
        assert volume.frame_order == tuple(order.index(3 * n + k) for k in range(3))


def test_stacks_of_an_enhanced_file_are_volumes(tmp_path: Path) -> None:
    """Two stacks of parallel slices in one file, one behind the other without a gap: two volumes."""
    dataset = enhanced(numbered(6), along_z(6), range(6))
    for k, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        content = item(StackID="1" if k < 3 else "2", InStackPositionNumber=k % 3 + 1)
        group.FrameContentSequence = Sequence([content])
    found = read_volumes([save(dataset, tmp_path / "enhanced.dcm")])
    assert [volume.distinction for volume in found.volumes] == ["StackID 1", "StackID 2"]
    for n, volume in enumerate(found.volumes):
        np.testing.assert_array_equal(volume.voxels, numbered(6)[3 * n : 3 * n + 3] - 1000)


@pytest.mark.data
@pytest.mark.parametrize(
    ("folder", "shapes", "word"),
    [
        ("geometry/mr_4d_epi_24", [(8, 64, 64)] * 3, "InstanceNumber from 9"),
        ("enhanced/siemens_vida_agfa", [(25, 64, 64)] * 4, "TemporalPositionIndex 3"),
        ("enhanced/philips_fMAP_64frames.dcm", [(32, 64, 64)] * 2, "EchoTime 1.52"),
        ("mr_spine_multi_block_one_series", [(3, 256, 256)] * 4, "orientation"),
        ("geometry/two_orientations_4", [(2, 288, 288)] * 2, "orientation"),
        ("ct_head_ge_tilt_irregular", [(14, 512, 512)] * 2, "block 2"),
    ],
)
def test_real_series_are_divided(data: Path, folder: str, shapes: list[tuple[int, ...]], word: str) -> None:
    """Real series of several volumes: how many, how large, and by what they are told."""
    place = data / folder
    found = read_volumes(sorted(place.iterdir()) if place.is_dir() else [place])
    assert [volume.voxels.shape for volume in found.volumes] == shapes
    assert any(word in volume.distinction for volume in found.volumes)
