"""From the header of a DICOM object to an instance, or to the reason why it is none."""

from __future__ import annotations

import math
import re
import struct
import uuid
from typing import TYPE_CHECKING, Final

from voxelmill_ingest import elements
from voxelmill_ingest.findings import Cosines, Instance, Refusal, Vector
from voxelmill_ingest.reasons import Reason
from voxelmill_shared.events import ObjectKind

if TYPE_CHECKING:
    from voxelmill_ingest.elements import Elements
    from voxelmill_ingest.ranges import Reading, Window

IMAGE_TYPE = 0x0008_0008
SOP_CLASS_UID = 0x0008_0016
SOP_INSTANCE_UID = 0x0008_0018
MODALITY = 0x0008_0060
SERIES_DATE = 0x0008_0021
SERIES_TIME = 0x0008_0031
STUDY_INSTANCE_UID = 0x0020_000D
SERIES_INSTANCE_UID = 0x0020_000E
SERIES_NUMBER = 0x0020_0011
INSTANCE_NUMBER = 0x0020_0013
IMAGE_POSITION_PATIENT = 0x0020_0032
IMAGE_ORIENTATION_PATIENT = 0x0020_0037
FRAME_OF_REFERENCE_UID = 0x0020_0052
SAMPLES_PER_PIXEL = 0x0028_0002
PHOTOMETRIC_INTERPRETATION = 0x0028_0004
NUMBER_OF_FRAMES = 0x0028_0008
ROWS = 0x0028_0010
COLUMNS = 0x0028_0011
BITS_ALLOCATED = 0x0028_0100
MEDIA_STORAGE_SOP_CLASS_UID = 0x0002_0002
MEDIA_STORAGE_SOP_INSTANCE_UID = 0x0002_0003
FILE_SET_ID = 0x0004_1130

_WANTED: Final = frozenset(
    {
        MEDIA_STORAGE_SOP_CLASS_UID,
        MEDIA_STORAGE_SOP_INSTANCE_UID,
        FILE_SET_ID,
        IMAGE_TYPE,
        SOP_CLASS_UID,
        SOP_INSTANCE_UID,
        MODALITY,
        STUDY_INSTANCE_UID,
        SERIES_INSTANCE_UID,
        SERIES_DATE,
        SERIES_TIME,
        SERIES_NUMBER,
        INSTANCE_NUMBER,
        FRAME_OF_REFERENCE_UID,
        IMAGE_POSITION_PATIENT,
        IMAGE_ORIENTATION_PATIENT,
        SAMPLES_PER_PIXEL,
        PHOTOMETRIC_INTERPRETATION,
        NUMBER_OF_FRAMES,
        ROWS,
        COLUMNS,
        BITS_ALLOCATED,
    }
)

UNCOMPRESSED: Final = frozenset(
    {elements.IMPLICIT_LITTLE, elements.EXPLICIT_LITTLE, elements.EXPLICIT_BIG, elements.DEFLATED}
)
COMPRESSED: Final = frozenset(
    {
        "1.2.840.10008.1.2.4.50",  # JPEG Baseline
        "1.2.840.10008.1.2.4.51",  # JPEG Extended
        "1.2.840.10008.1.2.4.57",  # JPEG Lossless
        "1.2.840.10008.1.2.4.70",  # JPEG Lossless, first-order prediction
        "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
        "1.2.840.10008.1.2.4.81",  # JPEG-LS Near-Lossless
        "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless
        "1.2.840.10008.1.2.4.91",  # JPEG 2000
        "1.2.840.10008.1.2.4.201",  # HTJ2K Lossless
        "1.2.840.10008.1.2.4.202",  # HTJ2K Lossless RPCL
        "1.2.840.10008.1.2.4.203",  # HTJ2K
        "1.2.840.10008.1.2.5",  # RLE Lossless
    }
)
"""The encapsulated transfer syntaxes that Voxelmill decodes (PS3.5 A.4)."""

_DICOMDIR = "1.2.840.10008.1.3.10"
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_OTHER_KINDS: Final = {
    # The storage SOP classes (PS3.4 B.5) that hold no image of this pipeline, by the number that follows _STORAGE.
    "8": "an overlay",
    "9": "a waveform or curve",
    "10": "a lookup table",
    "11": "a presentation state",
    "30": "a parametric map",
    "66": "raw data, a registration, a segmentation or a tractography result",
    "67": "a real world value mapping",
    "68": "a surface scan",
    "78": "an ophthalmic measurement",
    "79": "an ophthalmic measurement",
    "80": "an ophthalmic visual field",
    "88": "a structured report or a key object selection",
    "90": "a content assessment",
    "91": "microscopy annotations",
    "104": "an encapsulated document",
    "131": "a structured display",
    "200": "a protocol",
    "201": "an inventory",
    "481": "a radiotherapy dose, structure set, plan or record",
}
_RT_IMAGES = frozenset({"481.1", "481.23"})
MOST_DECODED_BYTES = 32 << 30
"""The most that the pixels of one object may be when they are decoded."""
_UIDS = uuid.uuid5(uuid.NAMESPACE_URL, "https://voxelmill.org/uids")
_UID = re.compile(r"[0-9]+(\.[0-9]+)*\Z")


class _RefusedError(Exception):
    """Carries a refusal out of the rules."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def read_dicom(window: Window) -> Reading[Instance | Refusal]:
    """Read the header of a DICOM object and judge it.

    Reads as few bytes as will do: for an image up to its pixel element, for another kind up to group 0020.
    """
    try:
        walker = yield from elements.open_data_set(window, _WANTED)
        found = walker.found
        if _text(found, MEDIA_STORAGE_SOP_CLASS_UID) != _DICOMDIR:
            yield from walker.run(stop_after=0x0020)
            if _other_kind(_sop_class(found)) is None:
                yield from walker.run()
    except elements.InvalidDicomError as error:
        return Refusal(reason=Reason.INVALID_HEADER, detail=str(error))
    return judge(found, window.size)


def judge(found: Elements, size: int) -> Instance | Refusal:
    """Decide what an object is from the elements of its header. `size` is the object's, in bytes."""
    try:
        return _instance(found, size)
    except _RefusedError as refused:
        identity = {
            "study_instance_uid": _valid_or_empty(found, STUDY_INSTANCE_UID),
            "series_instance_uid": _valid_or_empty(found, SERIES_INSTANCE_UID),
            "sop_instance_uid": _valid_or_empty(found, SOP_INSTANCE_UID),
            "sop_class_uid": _valid_or_empty(found, SOP_CLASS_UID),
            "modality": _text(found, MODALITY),
        }
        return Refusal(reason=refused.reason, detail=refused.detail, **identity)


def _instance(found: Elements, size: int) -> Instance:
    sop_class = _sop_class(found)
    if _DICOMDIR in {sop_class, _text(found, MEDIA_STORAGE_SOP_CLASS_UID)} or FILE_SET_ID in found.values:
        raise _RefusedError(Reason.DICOMDIR, "the directory of a medium")
    if (kind := _other_kind(sop_class)) is not None:
        raise _RefusedError(Reason.NOT_AN_IMAGE, f"{kind} (SOP Class {sop_class})")
    if found.cut:
        raise _RefusedError(Reason.TRUNCATED, found.cut)
    warnings: list[str] = []
    _uid(SOP_CLASS_UID, Reason.MISSING_SOP_CLASS_UID, sop_class)
    sop_instance = _text(found, SOP_INSTANCE_UID) or _text(found, MEDIA_STORAGE_SOP_INSTANCE_UID)
    _uid(SOP_INSTANCE_UID, Reason.MISSING_SOP_INSTANCE_UID, sop_instance)
    study, series = _study_and_series(found, warnings)
    if _texts(found, IMAGE_TYPE)[2:3] == ["LOCALIZER"]:
        raise _RefusedError(Reason.LOCALIZER, "Image Type value 3 is LOCALIZER")
    rows, columns, frames = _check_pixels(found, size, sop_class)
    if found.assumed_syntax:
        warnings.append(f"no transfer syntax is given, read as {found.transfer_syntax_uid}")
    return Instance(
        kind=ObjectKind.DICOM,
        study_instance_uid=study,
        series_instance_uid=series,
        sop_instance_uid=sop_instance,
        sop_class_uid=sop_class,
        modality=_text(found, MODALITY)[:16],
        transfer_syntax_uid=found.transfer_syntax_uid,
        instance_number=_instance_number(found, warnings),
        rows=rows,
        columns=columns,
        frames=frames,
        position=_position(found, warnings),
        orientation=_orientation(found, warnings),
        warnings=tuple(warnings),
    )


def _check_pixels(found: Elements, size: int, sop_class: str) -> tuple[int, int, int]:
    """Return rows, columns and frames if the pixels can be there in full."""
    rows, columns = _number(found, ROWS), _number(found, COLUMNS)
    pixels = found.pixels
    if pixels is None or rows == 0 or columns == 0:
        if pixels is None and not sop_class.startswith(_STORAGE):
            raise _RefusedError(Reason.NOT_AN_IMAGE, f"neither pixels nor an image's SOP Class ({sop_class})")
        what = "no pixel element" if pixels is None else f"{rows} rows and {columns} columns"
        raise _RefusedError(Reason.NO_PIXEL_DATA, what)
    if found.transfer_syntax_uid not in UNCOMPRESSED | COMPRESSED:
        raise _RefusedError(Reason.UNSUPPORTED_TRANSFER_SYNTAX, f"transfer syntax {found.transfer_syntax_uid}")
    frames = _frames(found)
    needed = _decoded_bytes(found, rows * columns, frames)
    if needed > MOST_DECODED_BYTES:
        raise _RefusedError(Reason.IMPLAUSIBLE_SIZE, f"{rows} x {columns} x {frames} frames are {needed} bytes")
    encapsulated = found.transfer_syntax_uid in COMPRESSED
    if encapsulated != (pixels.length is None):
        how = "are not" if encapsulated else "are"
        raise _RefusedError(
            Reason.INVALID_HEADER, f"the pixels {how} encapsulated in transfer syntax {found.transfer_syntax_uid}"
        )
    # An inflated data set has no offsets in the object; its pixels cannot be measured without inflating them.
    present = needed if found.deflated else size - pixels.offset
    if encapsulated:
        needed = 8 + 8 * frames  # the offset table's item and at least one fragment for each frame (PS3.5 A.4)
    elif pixels.length is not None:
        present = min(present, pixels.length)
    if present < needed:
        raise _RefusedError(
            Reason.TRUNCATED, f"{present} bytes of pixels, {rows} x {columns} x {frames} frames need {needed}"
        )
    if not encapsulated and not found.deflated and (pixels.length or 0) > size - pixels.offset:
        raise _RefusedError(Reason.TRUNCATED, f"{size - pixels.offset} bytes of pixels, {pixels.length} are announced")
    return rows, columns, frames


def _decoded_bytes(found: Elements, pixels_per_frame: int, frames: int) -> int:
    """Bytes of the pixels when they are not compressed (PS3.3 C.7.6.3.1, PS3.5 8.2)."""
    bits = _number(found, BITS_ALLOCATED)
    if bits == 0 or bits > 64:
        raise _RefusedError(Reason.INVALID_HEADER, f"Bits Allocated is {bits or 'missing'}")
    samples = max(_number(found, SAMPLES_PER_PIXEL), 1)
    doubled = 2 * samples
    if samples == 3:
        # Chrominance is stored for every second pixel, or for every fourth.
        doubled = {"YBR_FULL_422": 4, "YBR_PARTIAL_422": 4, "YBR_PARTIAL_420": 3}.get(
            _text(found, PHOTOMETRIC_INTERPRETATION), 6
        )
    return (pixels_per_frame * frames * doubled * bits + 15) // 16


def _frames(found: Elements) -> int:
    text = _text(found, NUMBER_OF_FRAMES)
    if not text:
        return 1
    if not (text.isascii() and text.isdigit()) or len(text) > 12 or int(text) == 0:
        raise _RefusedError(Reason.INVALID_HEADER, f"Number of Frames is {text[:16]!r}")
    return int(text)


def _instance_number(found: Elements, warnings: list[str]) -> int | None:
    text = _text(found, INSTANCE_NUMBER)
    if re.fullmatch(r"[+-]?[0-9]{1,12}", text):
        return int(text)
    if text:
        warnings.append("Instance Number is no number")
    return None


def _position(found: Elements, warnings: list[str]) -> Vector | None:
    match _decimals(found, IMAGE_POSITION_PATIENT):
        case [x, y, z]:
            return (x, y, z)
        case []:
            return None
    warnings.append("Image Position (Patient) is no point")
    return None


def _orientation(found: Elements, warnings: list[str]) -> Cosines | None:
    match _decimals(found, IMAGE_ORIENTATION_PATIENT):
        case [a, b, c, d, e, f]:
            return (a, b, c, d, e, f)
        case []:
            return None
    warnings.append("Image Orientation (Patient) is no pair of directions")
    return None


def _decimals(found: Elements, tag: int) -> list[float] | None:
    """Return the values of a decimal string, none if one is no finite number (PS3.5 6.2, DS)."""
    texts = _texts(found, tag)
    if texts == [""]:
        return []
    try:
        values = [float(text) for text in texts]
    except ValueError:
        return None
    return values if all(map(math.isfinite, values)) else None


def _other_kind(sop_class: str) -> str | None:
    """Name the kind of a SOP class that holds no image of this pipeline."""
    if not sop_class.startswith(_STORAGE):
        return None
    rest = sop_class.removeprefix(_STORAGE)
    return None if rest in _RT_IMAGES else _OTHER_KINDS.get(rest.split(".")[0])


def _sop_class(found: Elements) -> str:
    return _text(found, SOP_CLASS_UID) or _text(found, MEDIA_STORAGE_SOP_CLASS_UID)


def _study_and_series(found: Elements, warnings: list[str]) -> tuple[str, str]:
    """Return the UIDs of study and series; make them where de-identification has blanked them.

    The Frame of Reference UID is globally unique and shared by all instances of a series (PS3.3 C.7.4.1), so with the
    series' number, date and time it tells series apart as well as the lost UID did. Without it nothing can.
    """
    study, series = _text(found, STUDY_INSTANCE_UID), _text(found, SERIES_INSTANCE_UID)
    frame_of_reference = _text(found, FRAME_OF_REFERENCE_UID)
    if not study and (series or frame_of_reference):
        study = content_uid("study", series or frame_of_reference)
        warnings.append("no Study Instance UID, one was made")
    if not series and frame_of_reference:
        parts = [_text(found, tag) for tag in (MODALITY, SERIES_NUMBER, SERIES_DATE, SERIES_TIME)]
        series = content_uid("series", study, frame_of_reference, *parts)
        warnings.append("no Series Instance UID, one was made from the Frame of Reference")
    _uid(STUDY_INSTANCE_UID, Reason.MISSING_STUDY_INSTANCE_UID, study)
    _uid(SERIES_INSTANCE_UID, Reason.MISSING_SERIES_INSTANCE_UID, series)
    return study, series


def content_uid(*parts: str) -> str:
    """Return a UID made from a UUID (PS3.5 B.2) that the same parts always give."""
    return f"2.25.{uuid.uuid5(_UIDS, chr(10).join(parts)).int}"


def _uid(tag: int, if_missing: Reason, text: str) -> None:
    """Refuse an object whose UID is missing or malformed."""
    if not text:
        raise _RefusedError(if_missing, if_missing.explanation.rstrip("."))
    if len(text) > 64 or not _UID.match(text):
        raise _RefusedError(Reason.INVALID_UID, f"{elements.name(tag)} is {text[:80]!r}")


def _valid_or_empty(found: Elements, tag: int) -> str:
    text = _text(found, tag)
    return text if len(text) <= 64 and _UID.match(text) else ""


def _texts(found: Elements, tag: int) -> list[str]:
    return [part.strip(" \0") for part in found.values.get(tag, b"").decode("latin-1").split("\\")]


def _text(found: Elements, tag: int) -> str:
    return found.values.get(tag, b"").partition(b"\\")[0].decode("latin-1").strip(" \0")


def _number(found: Elements, tag: int) -> int:
    value = found.values.get(tag, b"")
    if len(value) < 2:
        return 0
    number: int = struct.unpack_from(">H" if found.big_endian else "<H", value)[0]
    return number
