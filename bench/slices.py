"""Slices as DICOM: what is to be written, and the writing of it, classic and Enhanced."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CT, ENHANCED_CT, PET = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.128"
SIDE, SPACING, GAP = 128, 2.0, 3.0
"""Pixels along a side, mm between the pixels, and mm between the slices."""


@dataclass
class Slice:
    """One slice to be written; values in the modality's units."""

    values: NDArray[Any]
    position: NDArray[np.float64]
    along_row: NDArray[np.float64] = field(default_factory=lambda: np.array([1.0, 0, 0]))
    along_column: NDArray[np.float64] = field(default_factory=lambda: np.array([0, 1.0, 0]))
    slope: float = 1.0
    intercept: float = -1024.0
    signed: bool = False
    bits_stored: int = 12
    more: dict[str, Any] = field(default_factory=dict)


def _common(modality: str, sop_class: str) -> Dataset:
    common = Dataset()
    common.file_meta = FileMetaDataset()
    common.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    common.SOPClassUID = common.file_meta.MediaStorageSOPClassUID = sop_class
    common.Modality = modality
    common.PatientName, common.PatientID, common.Manufacturer = "HOSTILE", "hostile", "Voxelmill"
    common.StudyInstanceUID, common.SeriesInstanceUID = generate_uid(), generate_uid()
    common.FrameOfReferenceUID = generate_uid()
    common.StudyDate, common.StudyTime, common.SeriesNumber = "20200101", "120000", 1
    common.StudyID = common.AccessionNumber = "1"
    common.PatientPosition, common.ImageType = "HFS", ["ORIGINAL", "PRIMARY", "AXIAL"]
    common.SamplesPerPixel, common.PhotometricInterpretation = 1, "MONOCHROME2"
    common.Rows = common.Columns = SIDE
    common.BitsAllocated = 16
    return common


def _stored(one: Slice) -> bytes:
    stored = np.rint((one.values.astype(np.float64) - one.intercept) / one.slope).astype(np.int64)
    return (stored & ((1 << one.bits_stored) - 1)).astype("<u2").tobytes()


def numbers(values: Any) -> list[str]:
    """Write numbers as decimal strings."""
    return [f"{float(value):.9g}" for value in values]


def write(folder: Path, slices: list[Slice], modality: str = "CT", sop_class: str = CT) -> list[Path]:
    """Write slices as single-frame files of one series, numbered in the order given."""
    common = _common(modality, sop_class)
    paths = []
    for number, one in enumerate(slices, 1):
        whole = deepcopy(common)
        whole.SOPInstanceUID = whole.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        whole.InstanceNumber, whole.AcquisitionNumber = number, 1
        whole.ImagePositionPatient = numbers(one.position)
        whole.ImageOrientationPatient = numbers([*one.along_row, *one.along_column])
        whole.PixelSpacing, whole.SliceThickness = numbers([SPACING, SPACING]), GAP
        whole.RescaleSlope, whole.RescaleIntercept = f"{one.slope:.9g}", f"{one.intercept:.9g}"
        whole.PixelRepresentation = int(one.signed)
        whole.BitsStored, whole.HighBit = one.bits_stored, one.bits_stored - 1
        for keyword, value in one.more.items():
            setattr(whole, keyword, value)
        whole.PixelData = _stored(one)
        whole["PixelData"].VR = "OW"
        path = folder / f"{number:03}.dcm"
        whole.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def write_enhanced(folder: Path, slices: list[Slice]) -> list[Path]:
    """Write slices as one Enhanced CT image, in the order given."""
    whole = _common("CT", ENHANCED_CT)
    whole.SOPInstanceUID = whole.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    whole.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    whole.InstanceNumber, whole.NumberOfFrames = 1, len(slices)
    whole.PixelRepresentation, whole.BitsStored, whole.HighBit = 0, 12, 11
    order = np.argsort([one.position[2] for one in slices]).argsort()
    whole.DimensionOrganizationSequence = [Dataset()]
    organization = generate_uid()
    whole.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    index = Dataset()
    index.DimensionOrganizationUID = organization
    index.DimensionIndexPointer, index.FunctionalGroupPointer = 0x00209057, 0x00209111
    whole.DimensionIndexSequence = [index]
    frames = []
    for rank, one in zip(order, slices, strict=True):
        groups = Dataset()
        content, place, turn, measures, transform = (Dataset() for _ in range(5))
        content.StackID, content.InStackPositionNumber = "1", int(rank) + 1
        content.DimensionIndexValues = [int(rank) + 1]
        place.ImagePositionPatient = numbers(one.position)
        turn.ImageOrientationPatient = numbers([*one.along_row, *one.along_column])
        measures.PixelSpacing, measures.SliceThickness = numbers([SPACING, SPACING]), GAP
        transform.RescaleSlope, transform.RescaleIntercept = f"{one.slope:.9g}", f"{one.intercept:.9g}"
        transform.RescaleType = "HU"
        groups.FrameContentSequence, groups.PlanePositionSequence = [content], [place]
        groups.PlaneOrientationSequence, groups.PixelMeasuresSequence = [turn], [measures]
        groups.PixelValueTransformationSequence = [transform]
        frames.append(groups)
    whole.SharedFunctionalGroupsSequence = [Dataset()]
    whole.PerFrameFunctionalGroupsSequence = frames
    whole.PixelData = b"".join(_stored(one) for one in slices)
    whole["PixelData"].VR = "OW"
    path = folder / "001.dcm"
    whole.save_as(path, enforce_file_format=True)
    return [path]
