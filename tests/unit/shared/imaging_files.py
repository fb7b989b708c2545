"""DICOM series that the tests make, so that every number in them is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from voxelmill_shared.imaging import read_frames

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from voxelmill_shared.imaging import Frame

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
SERIES = generate_uid(entropy_srcs=["series"])
FRAME_OF_REFERENCE = generate_uid(entropy_srcs=["frame of reference"])


def image(stored: NDArray[Any], **elements: Any) -> Dataset:
    """Return an image data set: a CT with intercept -1024 unless `elements` say otherwise; None leaves one out."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    colour = stored.shape[-1] == 3 and stored.ndim > 2
    bits = 8 * stored.dtype.itemsize
    base: dict[str, Any] = {
        "SOPClassUID": CT,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "SeriesInstanceUID": SERIES,
        "FrameOfReferenceUID": FRAME_OF_REFERENCE,
        "Modality": "CT",
        "Rows": stored.shape[-3 if colour else -2],
        "Columns": stored.shape[-2 if colour else -1],
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(stored.dtype.kind == "i"),
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "ImagePositionPatient": [0, 0, 0],
        "PixelSpacing": [1, 1],
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
    }
    if colour:
        base["PlanarConfiguration"] = 0
    data = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    dataset = Dataset()
    dataset.file_meta = meta
    for keyword, value in (base | elements).items():
        if value is not None:
            setattr(dataset, keyword, value)
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    if "PixelData" not in dataset:
        dataset.PixelData = data + bytes(len(data) % 2)
        dataset["PixelData"].VR = "OW" if bits > 8 else "OB"
    return dataset


def save(dataset: Dataset, path: Path) -> Path:
    """Write a data set as a DICOM file."""
    dataset.save_as(path, enforce_file_format=True)
    return path


def only_frame(dataset: Dataset, folder: Path) -> Frame:
    """Write a data set as a file and read the one frame that it has."""
    (frame,) = read_frames(save(dataset, folder / "one.dcm"))
    return frame


def write_series(folder: Path, stored: NDArray[Any], positions: Any, **elements: Any) -> list[Path]:
    """Write one file per slice of `stored` (slices, rows, columns); the names say nothing about the order."""
    paths = []
    for k, position in enumerate(positions):
        dataset = image(stored[k], ImagePositionPatient=[float(f"{x:.8g}") for x in position], **elements)
        paths.append(save(dataset, folder / f"{(k * 7 + 3) % 101:03d}-{k}.dcm"))
    return paths


def along_z(count: int, spacing: float = 2.0) -> list[tuple[float, float, float]]:
    """Return the positions of an even axial stack."""
    return [(-10.0, -20.0, 5.0 + spacing * k) for k in range(count)]


def numbered(count: int, rows: int = 4, columns: int = 5) -> NDArray[np.int16]:
    """Return slices whose every voxel is different, the slice's number in the thousands."""
    within = np.arange(rows * columns, dtype=np.int16).reshape(rows, columns)
    return np.stack([within + np.int16(1000 * k) for k in range(count)])


def enhanced(stored: NDArray[Any], positions: Any, order: Any, slopes: Any = None) -> Dataset:
    """Return an Enhanced CT whose frames are the slices of `stored` in `order`."""
    dataset = image(
        np.ascontiguousarray(stored[list(order)]),
        SOPClassUID=ENHANCED_CT,
        NumberOfFrames=len(positions),
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        PixelSpacing=None,
        RescaleSlope=None,
        RescaleIntercept=None,
    )
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([_item(PixelSpacing=[0.5, 0.75])])
    shared.PlaneOrientationSequence = Sequence([_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])])
    shared.PixelValueTransformationSequence = Sequence([_item(RescaleSlope=1, RescaleIntercept=-1000)])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for k in order:
        frame = Dataset()
        frame.PlanePositionSequence = Sequence([_item(ImagePositionPatient=list(positions[k]))])
        if slopes is not None:
            item = _item(RescaleSlope=slopes[k], RescaleIntercept=0)
            frame.PixelValueTransformationSequence = Sequence([item])
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    return dataset


def _item(**elements: Any) -> Dataset:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item
