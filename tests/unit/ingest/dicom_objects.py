"""DICOM objects made for tests, and readers fed from memory."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from voxelmill_ingest.header import read_dicom
from voxelmill_ingest.ranges import Window

if TYPE_CHECKING:
    from voxelmill_ingest.findings import Instance, Refusal
    from voxelmill_ingest.ranges import Reading

BITS = {n: {"BitsAllocated": n, "BitsStored": n, "HighBit": n - 1} for n in (1, 8, 16)}


def run(reading: Reading[Any], body: bytes) -> tuple[Any, int]:
    """Feed a reader from memory; return what it found and how many bytes it asked for."""
    total = 0
    try:
        wanted = next(reading)
        while True:
            piece = body[wanted.start : wanted.start + wanted.length]
            total += len(piece)
            wanted = reading.send(piece)
    except StopIteration as end:
        return end.value, total


def judge(body: bytes, size: int | None = None) -> Instance | Refusal:
    found: Instance | Refusal = run(read_dicom(Window(len(body) if size is None else size)), body)[0]
    return found


def dataset(**values: Any) -> Dataset:
    """Make a CT image without a fault, and then change it; none deletes an element."""
    ds = Dataset()
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.3.4", "1.2.3.4.5"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.Modality = "CT"
    ds.InstanceNumber = 7
    ds.FrameOfReferenceUID = "1.2.7"
    ds.ImagePositionPatient = [1.5, -2, 3]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit = 4, 6, 16, 12, 11
    ds.SamplesPerPixel, ds.PixelRepresentation, ds.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    ds.PixelSpacing = [0.7, 0.7]
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    ds.PixelData = bytes(48)
    for keyword, value in values.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def encoded(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID") or CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID") or "1.2.9"
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()
