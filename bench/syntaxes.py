"""One series of real pixels, written in the transfer syntaxes that readers are timed with."""

from __future__ import annotations

from copy import deepcopy
from io import BytesIO
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)
from rle.rle import decode_frame, encode_segment

from voxelmill_shared.imaging import read_volumes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

INTERCEPT = -1024


def _rle(cells: NDArray[Any]) -> bytes:
    segments: list[bytes] = []
    for shift in (8, 0):  # the most significant bytes come first (PS3.5 G.2)
        plane = (cells >> shift).astype(np.uint8)
        segments.append(bytes(encode_segment(plane.tobytes(), plane.shape[1])))
    offsets = np.cumsum([64, *(len(segment) for segment in segments)])[:-1]
    header = np.zeros(16, "<u4")
    header[0], header[1 : 1 + len(segments)] = len(segments), offsets
    return header.tobytes() + b"".join(segments)


def _decode_rle(data: bytes) -> Any:
    return decode_frame(data, 512 * 512, 16, "<")


SYNTAXES: dict[str, tuple[str, Callable[[NDArray[Any]], bytes] | None, Callable[[bytes], Any]]] = {
    "uncompressed": (ExplicitVRLittleEndian, None, lambda data: np.frombuffer(data, "<u2")),
    "J2K": (
        JPEG2000Lossless,
        lambda cells: imagecodecs.jpeg2k_encode(cells, level=0, codecformat="J2K", reversible=True, bitspersample=16),
        imagecodecs.jpeg2k_decode,
    ),
    "JPEG-LS": (JPEGLSLossless, imagecodecs.jpegls_encode, imagecodecs.jpegls_decode),
    "RLE": (RLELossless, _rle, _decode_rle),
    "HTJ2K": (HTJ2KLossless, lambda cells: imagecodecs.htj2k_encode(cells, reversible=True), imagecodecs.htj2k_decode),
}
"""By name: the transfer syntax, its encoder, and the bare decoder that Voxelmill uses for it."""


def real_slices(source: list[Path], count: int) -> NDArray[np.uint16]:
    """Return `count` slices of stored values, (count, 512, 512), from a real series, there and back."""
    (volume,) = read_volumes(source).volumes
    stored = (volume.voxels.astype(np.int32) - INTERCEPT).clip(0, 4095).astype(np.uint16)
    there_and_back = np.concatenate([np.arange(len(stored)), np.arange(len(stored))[-2:0:-1]])
    return stored[np.resize(there_and_back, count)]


def write(stored: NDArray[np.uint16], name: str, more: dict[str, Any] | None = None) -> tuple[list[bytes], list[bytes]]:
    """Return the files of a series in a syntax of `SYNTAXES`, and the encoded frame of each; `more` elements go in."""
    syntax, encode, _ = SYNTAXES[name]
    common = _common(syntax, stored.shape[1:])
    for keyword, value in (more or {}).items():
        setattr(common, keyword, value)
    frames: dict[bytes, bytes] = {}
    files, encoded = [], []
    for number, cells in enumerate(stored):
        whole = deepcopy(common)
        whole.SOPInstanceUID = whole.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        whole.InstanceNumber = number + 1
        whole.ImagePositionPatient = [-190.0, -180.0, 1.5 * number]
        raw = cells.tobytes()
        if raw not in frames:
            frames[raw] = raw if encode is None else bytes(encode(cells))
        whole.PixelData = frames[raw] if encode is None else encapsulate([frames[raw]])
        whole["PixelData"].VR = "OW"
        whole["PixelData"].is_undefined_length = encode is not None
        stream = BytesIO()
        whole.save_as(stream, enforce_file_format=True)
        files.append(stream.getvalue())
        encoded.append(frames[raw])
    return files, encoded


def _common(syntax: str, shape: tuple[int, ...]) -> Dataset:
    common = Dataset()
    common.file_meta = FileMetaDataset()
    common.file_meta.TransferSyntaxUID = syntax
    common.SOPClassUID = common.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    common.Modality, common.Manufacturer, common.ImageType = "CT", "Voxelmill", ["ORIGINAL", "PRIMARY", "AXIAL"]
    common.PatientName, common.PatientID, common.PatientPosition = "BENCH", "bench", "HFS"
    common.StudyInstanceUID, common.SeriesInstanceUID = generate_uid(), generate_uid()
    common.FrameOfReferenceUID = generate_uid()
    common.StudyDate, common.StudyTime, common.StudyID, common.AccessionNumber = "20200101", "120000", "1", "1"
    common.SeriesNumber, common.AcquisitionNumber = 1, 1
    common.PatientBirthDate, common.PatientSex, common.ReferringPhysicianName = "", "", ""
    common.PositionReferenceIndicator = ""
    common.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    common.PixelSpacing, common.SliceThickness, common.KVP = [0.75, 0.75], 1.5, "120"
    common.SamplesPerPixel, common.PhotometricInterpretation = 1, "MONOCHROME2"
    common.Rows, common.Columns = shape
    common.BitsAllocated, common.BitsStored, common.HighBit, common.PixelRepresentation = 16, 16, 15, 0
    common.RescaleSlope, common.RescaleIntercept, common.RescaleType = 1, INTERCEPT, "HU"
    return common
