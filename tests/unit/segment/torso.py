"""A coarse torso for tests: simple shapes with known sides, and its DICOM files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from voxelmill_segment.task import SegmentTask
from voxelmill_shared.events import ObjectKind
from voxelmill_shared.imaging.volume import Volume
from voxelmill_shared.plan import Plan

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SPACING = (4.0, 3.5, 3.5)
SHAPE = (64, 84, 108)


def torso_hu(*, gas: bool = True, lean: float = 0.0) -> NDArray[np.int16]:
    """Return HU (superior, posterior, left): the left lung is the smaller one, gas lies in the belly.

    With `lean` each slice is acquired that many mm further back for each mm upwards, as with a tilted gantry.
    """
    z, y, x = np.meshgrid(
        *[(np.arange(n) - (n - 1) / 2) * step for n, step in zip(SHAPE, SPACING, strict=True)], indexing="ij"
    )
    y = y + lean * z
    hu = np.full(SHAPE, -1000.0)
    hu[(y > 112) & (y < 118) & (abs(x) < 170)] = -100  # the table
    body = (x / 165) ** 2 + (y / 105) ** 2 < 1
    hu[body] = -100
    hu[(x / 148) ** 2 + (y / 90) ** 2 < 1] = 50
    rib_cage = np.sqrt((x / 132) ** 2 + (y / 78) ** 2)
    hu[(abs(rib_cage - 1) < 0.045) & (np.mod(z, 24) < 12)] = 500
    for side, width in ((1, 44), (-1, 52)):
        lung = ((x - side * 68) / width) ** 2 + (y / 62) ** 2 + ((z - 25) / 82) ** 2 < 1
        hu[lung] = -850
        hu[lung & ((np.mod(y, 21) - 10) ** 2 + (np.mod(z, 24) - 12) ** 2 < 9)] = 40  # vessels from side to side
    spine = (x / 19) ** 2 + ((y - 58) / 16) ** 2
    hu[spine < 1] = 500
    hu[spine < 0.72] = 180
    arch = (x / 17) ** 2 + ((y - 86) / 15) ** 2
    hu[arch < 1] = 500
    hu[arch < 0.4] = 30
    hu[(x**2 + (y - 10) ** 2 < 169) & (z > 40)] = 50
    hu[(x**2 + (y - 10) ** 2 < 110) & (z > 40)] = -995  # the trachea
    if gas:
        hu[((x - 30) / 40) ** 2 + ((y + 30) / 30) ** 2 + ((z + 95) / 25) ** 2 < 1] = -995
    noise = np.random.default_rng(5).normal(0, 12, SHAPE)
    return np.clip(hu + noise, -1024, 3071).astype(np.int16)


def torso(hu: NDArray[np.int16] | None = None, modality: str = "CT") -> Volume:
    """Return the torso as axial slices from the feet to the head."""
    affine = np.diag([SPACING[2], SPACING[1], SPACING[0], 1.0])
    affine[:3, 3] = (-180.0, -140.0, -900.0)
    return Volume(voxels=torso_hu() if hu is None else hu, affine=affine, modality=modality)


def tilted_torso(lean: float) -> Volume:
    """Return the same patient acquired with a tilted gantry: the affine is sheared by `lean` mm for each mm upwards."""
    volume = torso(torso_hu(lean=lean))
    volume.affine[1, 2] = lean * SPACING[0]
    volume.affine[1, 3] -= lean * (SHAPE[0] - 1) / 2 * SPACING[0]
    return volume


def turned(volume: Volume, order: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> Volume:
    """Return the same patient with array axes permuted and flipped; the affine follows."""
    affine = volume.affine.copy()
    voxels = volume.voxels.transpose(order)
    affine[:3, :3] = volume.affine[:3, :3][:, [2 - order[2 - axis] for axis in range(3)]]
    for axis, flip in enumerate(flips):
        if flip:
            voxels = np.flip(voxels, axis)
            column = 2 - axis
            affine[:3, 3] += affine[:3, column] * (voxels.shape[axis] - 1)
            affine[:3, column] *= -1
    return Volume(voxels=voxels, affine=affine, modality=volume.modality)


def write_series(folder: Path, volume: Volume, **attributes: object) -> list[Path]:
    """Write axial slices as a plain CT series; the file names do not follow the slices' order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, plane in enumerate(volume.voxels):
        image = Dataset()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = CTImageStorage
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{index + 1}"
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = "1.2.1", "1.2.2", "1.2.4"
        image.PatientName, image.PatientID, image.Modality = "Torso^Test", "T1", "CT"
        image.StudyDate, image.StudyTime, image.InstanceNumber = "20240102", "030405", index + 1
        image.ImagePositionPatient = [float(v) for v in volume.affine[:3, 3] + index * volume.affine[:3, 2]]
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        image.PixelSpacing = [float(volume.affine[1, 1]), float(volume.affine[0, 0])]
        image.SliceThickness = float(volume.affine[2, 2])
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.Rows, image.Columns = plane.shape
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
        image.RescaleIntercept, image.RescaleSlope = 0, 1
        image.PixelData = np.ascontiguousarray(plane).astype("<i2").tobytes()
        image["PixelData"].VR = "OW"
        for keyword, value in attributes.items():
            setattr(image, keyword, value)
        path = folder / f"{(index * 37) % 101:03d}-{index}.dcm"
        image.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def series_task(paths: list[Path], output: Path, kind: ObjectKind = ObjectKind.DICOM, **plan: object) -> SegmentTask:
    """Ask for a series as the handler does: each instance has UIDs, made up where its file has none."""
    sop_instance_uids = [f"2.25.100{number}" for number in range(len(paths))]
    if kind is ObjectKind.DICOM:
        for number, path in enumerate(paths):
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True) if path.exists() else Dataset()
            sop_instance_uids[number] = str(header.get("SOPInstanceUID") or sop_instance_uids[number])
    return SegmentTask(
        paths=tuple(paths),
        kind=kind,
        modality="CT" if kind is ObjectKind.DICOM else "",
        plan=Plan.model_validate(plan),
        output=output,
        study_instance_uid="1.2.1",
        series_instance_uid="1.2.2",
        sop_instance_uids=tuple(sop_instance_uids),
        sop_class_uids=("",) * len(paths),
    )


def silent(step: str) -> None:
    """Take a report of progress and say nothing."""
    assert step


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return twice the overlap over the sum of both."""
    return float(2 * (one & other).sum() / max(1, one.sum() + other.sum()))
