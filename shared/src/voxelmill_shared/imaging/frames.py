"""Frames for pictures: stored values of any kind of image, with what is needed to show them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from math import isfinite
from typing import TYPE_CHECKING, Any

from voxelmill_shared.imaging.decoding import Stored, decode
from voxelmill_shared.imaging.image import HEADER_ERRORS, DicomImage
from voxelmill_shared.imaging.opening import open_image
from voxelmill_shared.imaging.palette import Palette, in_sign, read_palette
from voxelmill_shared.imaging.reasons import Unsupported
from voxelmill_shared.imaging.transform import LookUpTable, ModalityTransform, Padding, decimal
from voxelmill_shared.privacy import unquoted
from voxelmill_shared.text import shown

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
        be chosen). None where it has neither, or where what it has is not meant for eyes (FOR PROCESSING).
    padding
        The stored values that are no image.
    palette
        The colours, for PALETTE COLOR and for images with a supplemental palette.
    aspect
        The height of a pixel divided by its width.
    inverted
        Whether low values are bright.
    logarithmic
        Whether the values are a detector's linear ones, of which eyes want the logarithm.
    air
        The padding of a CT, which `Padding.air` makes air of as in a volume.
    doubt
        What of the frame's own windows and tables makes no sense and was passed over; empty where all does.
    """

    photometric: str
    bits_stored: int
    signed: bool
    modality: ModalityTransform
    voi: LookUpTable | Window | None
    padding: Padding | None
    palette: Palette | None
    aspect: float
    inverted: bool = False
    logarithmic: bool = False
    air: Padding | None = None
    doubt: str = ""


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
        if image.elements is not None:
            return ModalityTransform.plain(image.elements.get("RescaleSlope"), image.elements.get("RescaleIntercept"))
        group = image.functional_group(frame, "PixelValueTransformationSequence")
        transform = ModalityTransform.of(group, image.header)
    except HEADER_ERRORS as error:
        raise _senseless(image, "modality transform", error) from None
    if transform.table is None:
        return transform
    return replace(transform, table=replace(transform.table, first=in_sign(transform.table.first, signed=image.signed)))


def display_of(image: DicomImage, frame: int, photometric: str) -> Display:
    """Return how to show a frame whose decoded samples mean `photometric`.

    An image FOR PROCESSING is a detector's raw values. It is shown as film shows X-rays, what lets little through
    bright: by Pixel Intensity Relationship and its Sign (PS3.3 C.8.11.3), without the windows that some writers add.

    Raises
    ------
    UnsupportedSeriesError
        With the code `unreadable-header`.
    """
    modality = modality_transform_of(image, frame)
    header = image.header
    if photometric in {"YBR_RCT", "YBR_ICT"}:
        photometric = "RGB"  # left in a header by whoever undid JPEG 2000's transform: nothing else has these
    try:
        raw = str(header.get("PresentationIntentType") or "").upper() == "FOR PROCESSING"
        voi, doubt = (None, "") if raw else _voi(image, frame, modality)
        return Display(
            photometric=photometric,
            bits_stored=image.bits_stored,
            signed=image.signed,
            modality=modality,
            voi=voi,
            padding=image.padding,
            palette=_palette(image, photometric),
            aspect=_aspect(image, frame),
            inverted=_inverted(header, photometric, raw=raw),
            logarithmic=raw and header.get("PixelIntensityRelationship") == "LIN",
            air=image.padding if image.text("Modality") == "CT" else None,
            doubt=doubt,
        )
    except HEADER_ERRORS as error:
        raise _senseless(image, "description of how to show it", error) from None


def _senseless(image: DicomImage, what: str, error: Exception) -> Exception:
    return Unsupported.UNREADABLE_HEADER.error(f"{image.name}: its {what} makes no sense ({unquoted(error)})")


def _inverted(header: Dataset, photometric: str, *, raw: bool) -> bool:
    """Say whether low values are bright.

    MONOCHROME1 says so, and Presentation LUT Shape INVERSE says the same once more (PS3.3 C.7.6.3.1.2, C.11.6.1).
    """
    sign = header.get("PixelIntensityRelationshipSign")
    if raw and sign in {1, -1}:
        return bool(sign == 1)  # the lower, the less of the beam came through
    shape = str(header.get("PresentationLUTShape") or "").upper()
    return photometric == "MONOCHROME1" or (photometric == "MONOCHROME2" and shape == "INVERSE")


def _voi(image: DicomImage, frame: int, modality: ModalityTransform) -> tuple[LookUpTable | Window | None, str]:
    """Return the first VOI table or window that makes sense, and what is wrong with the first that does not."""

    def table(source: Dataset) -> LookUpTable | None:
        if not source.get("VOILUTSequence"):
            return None
        found = LookUpTable.of(source.VOILUTSequence[0])
        return replace(found, first=in_sign(found.first, signed=_goes_below_zero(image, modality)))

    def window(source: Dataset) -> Window | None:
        return _first_window(source, whole=image.keyword == "PixelData" and modality.integral)

    doubt = ""
    for source in filter(None, (image.functional_group(frame, "FrameVOILUTSequence"), image.header)):
        for name, read in (("VOI LUT", table), ("window", window)):
            try:
                voi = read(source)
            except HEADER_ERRORS as error:
                doubt = doubt or shown(f"its {name} makes no sense ({unquoted(error)})")
                continue
            if voi is not None:
                return voi, doubt
    return None, doubt


def _goes_below_zero(image: DicomImage, modality: ModalityTransform) -> bool:
    """Say whether the modality transform can give a value below 0: then a VOI table's first input has a sign."""
    if modality.table is not None:
        return False
    low = -(1 << (image.bits_stored - 1)) if image.signed else 0
    high = low + (1 << image.bits_stored) - 1
    return min(low * modality.slope, high * modality.slope) + modality.intercept < 0


def _first_window(source: Dataset, *, whole: bool) -> Window | None:
    """Return the first window that can be used; `whole` says whether the values are whole numbers."""
    named = str(source.get("VOILUTFunction") or "LINEAR").strip().upper()
    function = WindowFunction(named) if named in set(WindowFunction) else WindowFunction.LINEAR
    for centre, width in zip(_numbers(source.get("WindowCenter")), _numbers(source.get("WindowWidth")), strict=False):
        if not (isfinite(centre) and isfinite(width) and width > 0):
            continue  # scanners write 0 for "none"
        if width >= 1 or function != WindowFunction.LINEAR:
            return Window(centre, width, function)
        # LINEAR needs a width of at least 1 (C.11.2.1.2.1). Writers of values with a fraction mean LINEAR_EXACT.
        if not whole:
            return Window(centre, width, WindowFunction.LINEAR_EXACT)
    return None


def _numbers(value: Any) -> list[float]:
    if value is None or value == "":
        return []
    return [decimal(value)] if isinstance(value, str | int | float) else [decimal(one) for one in value]


def has_supplemental_palette(image: DicomImage) -> bool:
    """Say whether stored values from some number on are colours and no measurement (PS3.3 C.7.6.19)."""
    coloured = image.photometric == "MONOCHROME2" and image.text("PixelPresentation").upper() in {"COLOR", "MIXED"}
    return coloured and "RedPaletteColorLookupTableDescriptor" in image.header


def _palette(image: DicomImage, photometric: str) -> Palette | None:
    def read(*, supplemental: bool) -> Palette:
        return read_palette(
            image.header, signed=image.signed, little_endian=image.little_endian, supplemental=supplemental
        )

    if photometric == "PALETTE COLOR":
        return read(supplemental=False)
    return read(supplemental=True) if has_supplemental_palette(image) else None


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


def body_part_of(image: DicomImage) -> str:
    """Return Body Part Examined, else the meaning of the anatomic region's code; empty where neither is there."""
    named = image.text("BodyPartExamined")
    if named:
        return named
    try:
        region = _region(image.functional_group(0, "FrameAnatomySequence")) or _region(image.header)
    except HEADER_ERRORS:
        return ""  # a code that cannot be read says as little as none
    return region


def _region(source: Dataset | None) -> str:
    regions = source.get("AnatomicRegionSequence") if source is not None else None
    return str(regions[0].get("CodeMeaning") or "") if regions else ""
