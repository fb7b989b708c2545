"""The phantom as a DICOM CT series (CT Image IOD, PS3.3 A.3), as a scanner would send it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from voxelmill_shared.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from voxelmill_cli.phantom import Phantom

_INTERCEPT = -1024
_BITS_STORED = 12
_DATE, _TIME = "20240101", "120000"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://voxelmill.org/phantom")


def write_series(folder: Path, phantom: Phantom) -> list[Path]:
    """Write a phantom as one DICOM file per slice.

    UIDs, and so the file names, follow from the phantom's plan. The names have nothing to do with the slices' order, as
    is usual for files that come from an archive. Every attribute of Type 1 and 2 of the CT Image IOD is there.

    Parameters
    ----------
    folder
        Where to write; it is made if need be.
    phantom
        The phantom.

    Returns
    -------
    list of pathlib.Path
        The files, from the feet to the head.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(len(phantom.voxels)):
        image = _instance(phantom, index)
        path = folder / f"{image.SOPInstanceUID}.dcm"
        image.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _uid(phantom: Phantom, what: str) -> UID:
    """Return a UID of a UUID (PS3.5 B.2) that follows from the plan."""
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, f'{phantom.plan} {what}').int}")


def _instance(phantom: Phantom, index: int) -> Dataset:
    plan, affine = phantom.plan, phantom.affine
    position = affine[:3, 3] + index * affine[:3, 2]
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.MediaStorageSOPClassUID = CTImageStorage
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPInstanceUID = _uid(phantom, f"instance {index}")
    image.SpecificCharacterSet = "ISO_IR 100"
    image.SOPClassUID = CTImageStorage
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID
    # Patient (C.7.1.1), General Study (C.7.2.1)
    image.PatientName, image.PatientID = "Phantom^Chest", f"PHANTOM-{plan.seed}"
    image.PatientBirthDate, image.PatientSex = "", "O"
    image.StudyInstanceUID, image.StudyID = _uid(phantom, "study"), "1"
    image.StudyDate, image.StudyTime = _DATE, _TIME
    image.ReferringPhysicianName, image.AccessionNumber = "", ""
    image.StudyDescription = "Phantom, chest"
    # General Series (C.7.3.1), Frame of Reference (C.7.4.1), Enhanced General Equipment (C.7.5.2)
    image.Modality, image.SeriesInstanceUID, image.SeriesNumber = "CT", _uid(phantom, "series"), 1
    image.SeriesDate, image.SeriesTime = _DATE, _TIME
    image.SeriesDescription, image.BodyPartExamined = "Phantom chest CT", "CHEST"
    image.PatientPosition, image.Laterality = "HFS", ""
    image.FrameOfReferenceUID, image.PositionReferenceIndicator = _uid(phantom, "frame of reference"), ""
    image.Manufacturer, image.ManufacturerModelName = "Voxelmill", "Phantom"
    image.SoftwareVersions, image.DeviceSerialNumber = __version__, str(plan.seed)
    # General Image (C.7.6.1), General Acquisition (C.7.10.1), Image Plane (C.7.6.2)
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.InstanceNumber, image.AcquisitionNumber = len(phantom.voxels) - index, 1
    image.ContentDate, image.ContentTime = _DATE, _TIME
    image.AcquisitionDate, image.AcquisitionTime = _DATE, _TIME
    image.PatientOrientation = ["L", "P"]
    image.ImageComments = "Computed, no patient"
    image.ImagePositionPatient = [f"{value:.4f}" for value in position]
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.PixelSpacing = [plan.pixel_mm, plan.pixel_mm]
    image.SliceThickness, image.SliceLocation = plan.slice_mm, f"{position[2]:.4f}"
    # CT Image (C.8.2.1)
    image.KVP, image.RescaleIntercept, image.RescaleSlope, image.RescaleType = 120, _INTERCEPT, 1, "HU"
    image.ConvolutionKernel, image.GantryDetectorTilt = "PHANTOM", 0
    # Image Pixel (C.7.6.3), VOI LUT (C.11.2)
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.Rows, image.Columns = plan.rows, plan.columns
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, _BITS_STORED, 11, 0
    image.WindowCenter, image.WindowWidth = ["40", "-600"], ["400", "1500"]
    image.WindowCenterWidthExplanation = ["SOFT TISSUE", "LUNG"]
    stored = phantom.voxels[index].astype(np.int32) - _INTERCEPT
    image.PixelData = np.clip(stored, 0, (1 << _BITS_STORED) - 1).astype("<u2").tobytes()
    image["PixelData"].VR = "OW"
    return image
