"""What was acquired: every frame with the values and the place that its own header gives it; slow and plain.

It reads with pydicom (NIfTI: nibabel) and shares no code with Voxelmill. Nothing is sorted, chosen, averaged or
assumed here: a frame is where Image Position (Patient) of that very frame says (PS3.3 C.7.6.2.1.1, C.7.6.16.2.3), and
its values are the stored ones after the modality transform of that very frame (C.11.1, C.7.6.16.2.9).
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pydicom
from answers import RAS_TO_LPS
from pydicom.pixels.utils import pixel_array

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom import Dataset

pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

_LOSSY = frozenset({"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.91"})
_ATTRIBUTES = (
    *("TemporalPositionIdentifier", "AcquisitionNumber", "EchoTime", "EchoNumbers", "TriggerTime", "DiffusionBValue"),
    *(
        "PatientID",
        "KVP",
        "FrameOfReferenceUID",
        "ImageType",
        "AcquisitionTime",
        "AcquisitionDateTime",
        "ContentTime",
        "SeriesTime",
        "InstanceNumber",
    ),
    *("StackID", "TemporalPositionIndex", "FrameType", "EffectiveEchoTime", "NominalCardiacTriggerDelayTime"),
)
"""What may tell two frames at one place apart."""


class Frames:
    """The frames of a series on their way to the judge: a JSON object each, and their values in files."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self.found: list[dict[str, Any]] = []
        self.left_out: list[str] = []
        """Why a file's frames, or the rest of them, are not here: a line for each such file."""

    def add(
        self,
        values: NDArray[Any],
        measured: NDArray[np.bool_] | None,
        place: tuple[NDArray[np.float64], ...],
        steps: tuple[float, int],
        attributes: dict[str, str],
        file: int,
    ) -> None:
        """Save one frame; `place` is its origin, the step from column to column and that from row to row, in mm."""
        number = len(self.found)
        np.save(self._output / f"frame-{number}.npy", np.asarray(values, np.float32))
        if measured is not None:
            np.save(self._output / f"measured-{number}.npy", measured)
        self.found.append(
            {
                "values": str(self._output / f"frame-{number}.npy"),
                "measured": None if measured is None else str(self._output / f"measured-{number}.npy"),
                "place": [vector.tolist() for vector in place],
                "step": steps[0],
                "slack": steps[1],
                "attributes": attributes,
                "file": file,
            }
        )


def read(paths: list[Path], output: Path) -> dict[str, Any]:
    """Read every frame of every file."""
    frames = Frames(output)
    for number, path in enumerate(paths):
        if path.name.endswith((".nii", ".nii.gz")):
            _read_nifti(path, frames)
            continue
        before = len(frames.found)
        try:
            try:
                _read_dicom(path, number, frames)
            except RuntimeError:  # no plugin of pydicom's decodes it; dcmtk may
                del frames.found[before:]
                _read_dicom(_decompressed(path, output), number, frames)
        except Exception as error:  # noqa: BLE001 - whatever stops the referee, the page names it: no truth of this file
            frames.left_out.append(f"unreadable: {type(error).__name__}")
    return {"outcome": "frames", "frames": frames.found, "left_out": frames.left_out}


def _decompressed(path: Path, output: Path) -> Path:
    target = output / "decompressed.dcm"
    subprocess.run(["dcmdjpeg", str(path), str(target)], check=True, capture_output=True, timeout=30)
    return target


def _read_nifti(path: Path, frames: Frames) -> None:
    image = nib.load(path)
    data = image.get_fdata(dtype=np.float64)
    affine = RAS_TO_LPS @ image.affine
    data = data.reshape(*data.shape[:3], -1)
    slope, _ = image.header.get_slope_inter()
    for n in range(data.shape[3]):
        for k in range(data.shape[2]):
            place = (affine[:3, 3] + k * affine[:3, 2], affine[:3, 0], affine[:3, 1])
            frames.add(data[:, :, k, n].T, None, place, (abs(slope or 1.0), 0), {"volume": str(n)}, 0)


def _read_dicom(path: Path, number: int, frames: Frames) -> None:
    whole = pydicom.dcmread(path, force=True)
    if not whole.file_meta.get("TransferSyntaxUID"):
        whole.file_meta.TransferSyntaxUID = (
            pydicom.uid.ImplicitVRLittleEndian if whole.original_encoding[0] else pydicom.uid.ExplicitVRLittleEndian
        )
    if int(whole.get("SamplesPerPixel", 1)) != 1 or whole.get("PhotometricInterpretation") == "PALETTE COLOR":
        frames.left_out.append("in colour")
        return
    count = int(whole.get("NumberOfFrames") or 1)
    for frame in range(count):
        groups = [
            *_items(whole, "PerFrameFunctionalGroupsSequence", frame),
            *_items(whole, "SharedFunctionalGroupsSequence", 0),
        ]
        place = _place(whole, groups, count)
        if place is None:
            frames.left_out.append("without a place in the patient")
            return
        cells = pixel_array(whole, index=frame, raw=True) if count > 1 else pixel_array(whole, raw=True)
        stored = _stored(whole, cells)
        values, step = _values(whole, groups, stored)
        slack = 0
        if whole.file_meta.TransferSyntaxUID in _LOSSY:
            slack = 2  # decoders of a lossy codestream each round their own way
        frames.add(values, _measured(whole, stored), place, (step, slack), _attributes(whole, groups), number)


def _items(source: Dataset, keyword: str, index: int) -> list[Dataset]:
    return [source[keyword].value[index]] if source.get(keyword) else []


def _find(groups: list[Dataset], sequence: str, keyword: str) -> Any:
    for group in groups:
        for item in _items(group, sequence, 0):
            if item.get(keyword) not in (None, ""):
                return item.get(keyword)
    return None


def _place(whole: Dataset, groups: list[Dataset], count: int) -> tuple[NDArray[np.float64], ...] | None:
    elements = []
    for sequence, keyword in (
        ("PlanePositionSequence", "ImagePositionPatient"),
        ("PlaneOrientationSequence", "ImageOrientationPatient"),
        ("PixelMeasuresSequence", "PixelSpacing"),
    ):
        found = _find(groups, sequence, keyword)
        if not found and not groups and count == 1:
            found = whole.get(keyword)
        if not found:
            return None
        elements.append(np.array([float(number) for number in found]))
    origin, directions, (between_rows, between_columns) = elements
    along_row, along_column = (vector / np.linalg.norm(vector) for vector in (directions[:3], directions[3:]))
    return origin, along_row * between_columns, along_column * between_rows


def _stored(whole: Dataset, cells: NDArray[Any]) -> NDArray[Any]:
    if cells.dtype.kind == "f":
        return cells
    bits = int(whole.BitsStored)
    low = int(whole.get("HighBit", bits - 1)) + 1 - bits
    stored = (cells.astype(np.int64) >> low) & ((1 << bits) - 1)
    if int(whole.get("PixelRepresentation", 0)):
        stored -= (stored >> (bits - 1)) << bits
    return stored


def _values(whole: Dataset, groups: list[Dataset], stored: NDArray[Any]) -> tuple[NDArray[np.float64], float]:
    if whole.get("ModalityLUTSequence"):
        table = whole.ModalityLUTSequence[0]
        count, first, _ = (int(number) for number in table.LUTDescriptor)
        entries = table.LUTData
        entries = np.frombuffer(entries, "<u2") if isinstance(entries, bytes) else np.array(entries)
        return entries[np.clip(stored - first, 0, (count or 65536) - 1)].astype(np.float64), 1.0
    slope, intercept = (
        _find(groups, "PixelValueTransformationSequence", keyword) for keyword in ("RescaleSlope", "RescaleIntercept")
    )
    if slope is None:
        slope, intercept = whole.get("RescaleSlope"), whole.get("RescaleIntercept")
    slope = 1.0 if slope in (None, "") else float(slope) or 1.0
    intercept = 0.0 if intercept in (None, "") else float(intercept)
    return stored * slope + intercept, abs(slope)


def _measured(whole: Dataset, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Where the pixels are no padding (PS3.3 C.7.5.1.1.2); None: everywhere."""
    padding = whole.get("PixelPaddingValue")
    if not isinstance(padding, int):
        return None
    limit = whole.get("PixelPaddingRangeLimit")
    bits = int(whole.BitsAllocated)
    ends = []
    for number in (padding, limit if isinstance(limit, int) else padding):
        end = number & ((1 << bits) - 1)
        ends.append(end - (1 << bits) if int(whole.get("PixelRepresentation", 0)) and end >> (bits - 1) else end)
    return np.asarray((stored < min(ends)) | (stored > max(ends)))


def _attributes(whole: Dataset, groups: list[Dataset]) -> dict[str, str]:
    attributes = {}
    sources = [item for group in groups for element in group if element.VR == "SQ" for item in element.value[:1]]
    for source in (whole, *reversed(sources)):
        for keyword in _ATTRIBUTES:
            if source.get(keyword) not in (None, ""):
                attributes[keyword] = str(source.get(keyword))
        indices = source.get("DimensionIndexValues") or ()
        for n, index in enumerate([indices] if isinstance(indices, int) else indices):
            attributes[f"dimension {n + 1}"] = str(index)
    return attributes
