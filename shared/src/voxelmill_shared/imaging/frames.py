"""Frames for pictures: stored values of any kind of image, with what is needed to show them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from voxelmill_shared.imaging.decoding import Stored, decode
from voxelmill_shared.imaging.image import HEADER_ERRORS, DicomImage, open_image
from voxelmill_shared.imaging.reasons import Unsupported
from voxelmill_shared.imaging.transform import LookUpTable, ModalityTransform, Padding

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydicom import Dataset


class WindowFunction(StrEnum):
    """VOI LUT Function (PS3.3 C.11.2.1.3)."""

    LINEAR = "LINEAR"
    LINEAR_EXACT = "LINEAR_EXACT"
    SIGMOID = "SIGMOID"


@dataclass(frozen=True, slots=True)
class Window:
    """Window centre and width in the modality's units (PS3.3 C.11.2.1.2)."""

    centre: float
    width: float
    function: WindowFunction = WindowFunction.LINEAR


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours that the stored values of a PALETTE COLOR image stand for (PS3.3 C.7.6.3.1.5)."""

    red: LookUpTable
    green: LookUpTable
    blue: LookUpTable


@dataclass(frozen=True, slots=True)
class Display:
    """How a frame's stored values become a picture.

    Attributes
    ----------
    photometric
        What the decoded samples mean: `MONOCHROME1`, `MONOCHROME2`, `PALETTE COLOR`, `RGB`, `YBR_FULL`, ...
    bits_stored, signed
        The range of the stored values.
    modality
        The modality transform, which comes first.
    voi
        The first VOI look-up table or window that the frame has; a table is preferred (PS3.3 C.11.2.1: either may
        be chosen). None where it has neither.
    padding
        The stored values that are no image.
    palette
        The colours, for PALETTE COLOR.
    aspect
        The height of a pixel divided by its width.
    """

    photometric: str
    bits_stored: int
    signed: bool
    modality: ModalityTransform
    voi: LookUpTable | Window | None
    padding: Padding | None
    palette: Palette | None
    aspect: float


@dataclass(frozen=True, eq=False)
class Frame:
    """One decoded frame: `stored` is (rows, columns) or (rows, columns, 3)."""

    stored: Stored
    display: Display


def read_frames(path: Path, frames: Sequence[int] | None = None) -> list[Frame]:
    """Decode frames of an image of any transfer syntax, grey or colour.

    Parameters
    ----------
    path
        The DICOM file.
    frames
        Which frames, from 0. All if left out.

    Raises
    ------
    UnsupportedSeriesError
        If the file is no image, claims an absurd size, or cannot be decoded.
    """
    image = open_image(path)
    return decode_frames(image, range(image.frames) if frames is None else frames)


def decode_frames(image: DicomImage, frames: Sequence[int]) -> list[Frame]:
    """Decode frames of an open image. The same errors as `read_frames`."""
    decoded = []
    for frame, encoded in zip(frames, image.encoded(frames), strict=True):
        stored, photometric = decode(image, frame, encoded)
        decoded.append(Frame(stored, display_of(image, frame, photometric)))
    return decoded


def modality_transform_of(image: DicomImage, frame: int) -> ModalityTransform:
    """Return a frame's modality transform: its functional group's, else the data set's."""
    try:
        group = image.functional_group(frame, "PixelValueTransformationSequence")
        return ModalityTransform.of(group, image.header)
    except HEADER_ERRORS as error:
        raise _senseless(image, "modality transform", error) from None


def display_of(image: DicomImage, frame: int, photometric: str) -> Display:
    """Return how to show a frame whose decoded samples mean `photometric`."""
    try:
        voi = _voi(image.functional_group(frame, "FrameVOILUTSequence"), image.header)
        palette = _palette(image.header) if photometric == "PALETTE COLOR" else None
        aspect = _aspect(image, frame)
    except HEADER_ERRORS as error:
        raise _senseless(image, "description of how to show it", error) from None
    return Display(
        photometric=photometric,
        bits_stored=image.bits_stored,
        signed=image.signed,
        modality=modality_transform_of(image, frame),
        voi=voi,
        padding=image.padding,
        palette=palette,
        aspect=aspect,
    )


def _senseless(image: DicomImage, what: str, error: Exception) -> Exception:
    return Unsupported.UNREADABLE_HEADER.error(f"{image.name}: its {what} makes no sense ({error})")


def _voi(*sources: Dataset | None) -> LookUpTable | Window | None:
    for source in sources:
        if source is None:
            continue
        if source.get("VOILUTSequence"):
            return LookUpTable.of(source.VOILUTSequence[0])
        window = _first_window(source)
        if window is not None:
            return window
    return None


def _first_window(source: Dataset) -> Window | None:
    named = str(source.get("VOILUTFunction") or "LINEAR").upper()
    function = WindowFunction(named) if named in set(WindowFunction) else WindowFunction.LINEAR
    for centre, width in zip(_numbers(source.get("WindowCenter")), _numbers(source.get("WindowWidth")), strict=False):
        # LINEAR needs a width of at least 1, the others more than 0 (C.11.2.1.2); scanners write 0 for "none".
        if width >= 1 or (width > 0 and function is not WindowFunction.LINEAR):
            return Window(centre, width, function)
    return None


def _numbers(value: Any) -> list[float]:
    if value is None or value == "":
        return []
    return [float(value)] if isinstance(value, str | int | float) else [float(one) for one in value]


def _palette(header: Dataset) -> Palette:
    tables = []
    for colour in ("Red", "Green", "Blue"):
        count, first, bits = (int(value) for value in header[f"{colour}PaletteColorLookupTableDescriptor"].value)
        name = f"{colour}PaletteColorLookupTableData"
        whole = name in header
        data = header[name].value if whole else _expand_segments(header[f"Segmented{name}"].value, bits)
        tables.append(LookUpTable.from_data((count, first, bits), data))
    return Palette(*tables)


def _expand_segments(data: bytes, bits: int) -> bytes:
    """Expand a segmented palette: runs of discrete, linear and indirect segments (PS3.3 C.7.9.2)."""
    words = memoryview(data).cast("H" if bits > 8 or len(data) % 2 == 0 else "B").tolist()
    values: list[int] = []
    place = 0
    while place + 1 < len(words):
        place = _expand_segment(words, place, values)
    return b"".join(value.to_bytes(2, "little") for value in values)


def _expand_segment(words: list[int], place: int, values: list[int]) -> int:
    kind, length = words[place], words[place + 1]
    if kind == 0:
        values.extend(words[place + 2 : place + 2 + length])
        return place + 2 + length
    if kind == 1:
        start, end = values[-1], words[place + 2]
        values.extend(start + round((end - start) * (step + 1) / length) for step in range(length))
        return place + 3
    if kind == 2:
        source = words[place + 2] | words[place + 3] << 16
        for _ in range(length):
            source = _expand_segment(words, source, values)
        return place + 4
    raise ValueError(f"a palette segment of the unknown kind {kind}")


def _aspect(image: DicomImage, frame: int) -> float:
    """Return height over width of a pixel: from a spacing (row spacing first, PS3.3 10.7.1.3), else the ratio."""
    measures = image.functional_group(frame, "PixelMeasuresSequence")
    spacings = [measures.get("PixelSpacing") if measures is not None else None]
    names = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
    spacings += [image.header.get(name) for name in names]
    for spacing in spacings:
        numbers = _numbers(spacing)
        if len(numbers) == 2 and min(numbers) > 0:
            return numbers[0] / numbers[1]
    return 1.0
