"""The rules about an image's pixels: the Image Pixel module (PS3.3 C.7.6.3), and whether all of them can be there."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from voxelmill_ingest import elements, tags
from voxelmill_ingest.cautions import Caution
from voxelmill_ingest.fragments import offset_table_problem
from voxelmill_ingest.reasons import Reason, RefusedError, shown
from voxelmill_ingest.values import asked_once, number, text
from voxelmill_shared.privacy import coded

if TYPE_CHECKING:
    from voxelmill_ingest.elements import Elements, Pixels
    from voxelmill_ingest.fragments import Fragments

UNCOMPRESSED: Final = frozenset(
    {elements.IMPLICIT_LITTLE, elements.EXPLICIT_LITTLE, elements.EXPLICIT_BIG, elements.DEFLATED}
)
COMPRESSED: Final = frozenset(
    {
        "1.2.840.10008.1.2.4.50",  # JPEG Baseline
        "1.2.840.10008.1.2.4.51",  # JPEG Extended
        "1.2.840.10008.1.2.4.53",  # JPEG Spectral Selection (retired)
        "1.2.840.10008.1.2.4.55",  # JPEG Full Progression (retired)
        "1.2.840.10008.1.2.4.57",  # JPEG Lossless
        "1.2.840.10008.1.2.4.70",  # JPEG Lossless, first-order prediction
        "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
        "1.2.840.10008.1.2.4.81",  # JPEG-LS Near-Lossless
        "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless
        "1.2.840.10008.1.2.4.91",  # JPEG 2000
        "1.2.840.10008.1.2.4.92",  # JPEG 2000 Part 2 Lossless
        "1.2.840.10008.1.2.4.93",  # JPEG 2000 Part 2
        "1.2.840.10008.1.2.4.201",  # HTJ2K Lossless
        "1.2.840.10008.1.2.4.202",  # HTJ2K Lossless RPCL
        "1.2.840.10008.1.2.4.203",  # HTJ2K
        "1.2.840.10008.1.2.5",  # RLE Lossless
        "1.2.840.10008.1.2.8.1",  # Deflated Image Frame Compression
    }
)
"""The encapsulated transfer syntaxes that Voxelmill decodes (PS3.5 A.4)."""
_KNOWN: Final = UNCOMPRESSED | COMPRESSED
_ALWAYS_LOSSY: Final = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 53, 55))

MOST_DECODED_BYTES = 32 << 30
"""The most that the pixels of one object may be when they are decoded."""
_CELLS: Final = frozenset({1, 8, 16, 32, 64})
_ONE_SAMPLE: Final = frozenset({"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"})
_THREE_SAMPLES: Final = frozenset(
    {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT", "XYB"}
)
_RETIRED_COLOURS: Final = frozenset({"ARGB", "CMYK", "HSV"})


@dataclass(frozen=True, slots=True)
class PixelMatrix:
    """The size of an image's pixels."""

    rows: int
    columns: int
    frames: int


def check_pixels(found: Elements, size: int, fragments: Fragments | None, warnings: list[str]) -> PixelMatrix:
    """Check that the pixels of an object are described without contradiction, can be decoded, and can be there in full.

    Parameters
    ----------
    found
        The header; its pixel element has been found.
    size
        The object's, in bytes.
    fragments
        How encapsulated pixels begin; none where they are not encapsulated.
    warnings
        Warnings are added here.

    Raises
    ------
    RefusedError
        If they are not, cannot, or are not there.
    """
    pixels = found.pixels
    if pixels is None:
        raise RefusedError(Reason.NO_PIXEL_DATA, "no pixel element")
    matrix, needed, said = _described(found, found.transfer_syntax_uid, pixels.tag)
    warnings += said
    encapsulated = found.transfer_syntax_uid in COMPRESSED
    if encapsulated != (pixels.length is None):
        how = "are not" if encapsulated else "are"
        raise RefusedError(
            Reason.INVALID_HEADER, f"the pixels {how} encapsulated in transfer syntax {found.transfer_syntax_uid}"
        )
    if fragments is not None:
        _check_fragments(found, size, fragments, matrix.frames, warnings)
    else:
        # A deflated data set has no offsets in the object: whether its pixels are cut is seen when they are inflated.
        rest = (pixels.length or 0) if found.deflated else size - pixels.offset
        _check_length(pixels, rest, needed, matrix, warnings)
    if found.transfer_syntax_uid in _ALWAYS_LOSSY or text(found, tags.LOSSY_IMAGE_COMPRESSION) == "01":
        warnings.append(Caution.LOSSY_COMPRESSION.about("the pixels have been compressed with loss"))
    return matrix


@asked_once(
    *(tags.ROWS, tags.COLUMNS, tags.NUMBER_OF_FRAMES, tags.BITS_ALLOCATED, tags.BITS_STORED, tags.HIGH_BIT),
    *(tags.PIXEL_REPRESENTATION, tags.SAMPLES_PER_PIXEL, tags.PHOTOMETRIC_INTERPRETATION, tags.PLANAR_CONFIGURATION),
)
def _described(found: Elements, syntax: str, pixel_tag: int) -> tuple[PixelMatrix, int, tuple[str, ...]]:
    """Return the size of the pixels, how many bytes they are when decoded, and what is odd about their description."""
    warnings: list[str] = []
    rows, columns = number(found, tags.ROWS) or 0, number(found, tags.COLUMNS) or 0
    if rows < 1 or columns < 1:
        raise RefusedError(Reason.NO_PIXEL_DATA, f"{rows} rows and {columns} columns")
    if syntax not in _KNOWN:
        raise RefusedError(Reason.UNSUPPORTED_TRANSFER_SYNTAX, f"transfer syntax {shown(syntax, 64)}")
    matrix = PixelMatrix(rows, columns, _frames(found, warnings))
    bits = _check_cells(found, pixel_tag, warnings)
    samples = _check_samples(found, warnings)
    needed = _decoded_bytes(found, matrix, samples, bits)
    if needed > MOST_DECODED_BYTES:
        raise RefusedError(Reason.IMPLAUSIBLE_SIZE, f"{rows} x {columns} x {matrix.frames} frames are {needed} bytes")
    return matrix, needed, tuple(warnings)


def _frames(found: Elements, warnings: list[str]) -> int:
    frames = text(found, tags.NUMBER_OF_FRAMES)
    if not frames:
        return 1
    if frames == "0":  # written by some for an image of a single frame
        warnings.append(Caution.MISSING_PIXEL_DESCRIPTION.about("Number of Frames is 0"))
        return 1
    if not re.fullmatch(r"\+?[0-9]{1,12}", frames) or int(frames) == 0:
        raise RefusedError(Reason.INVALID_HEADER, f"Number of Frames is {coded(frames)!r}")
    return int(frames)


def _check_cells(found: Elements, pixel_tag: int, warnings: list[str]) -> int:
    """Return Bits Allocated if the values can lie in their cells as the header says (PS3.5 8.1.1)."""
    bits = number(found, tags.BITS_ALLOCATED) or 0
    if bits < 1:
        raise RefusedError(Reason.INVALID_HEADER, f"Bits Allocated is {bits or 'missing'}")
    if bits not in _CELLS:
        raise RefusedError(Reason.UNSUPPORTED_PIXELS, f"Bits Allocated is {bits}")
    if pixel_tag != elements.PIXEL_DATA:
        return bits  # floating point has no bits stored and no sign of its own (PS3.3 C.7.6.24)
    stored, high = number(found, tags.BITS_STORED), number(found, tags.HIGH_BIT)
    signed = number(found, tags.PIXEL_REPRESENTATION)
    if signed is None:
        warnings.append(_absent("Pixel Representation"))
    elif signed not in {0, 1}:
        raise RefusedError(Reason.CONTRADICTORY_PIXELS, f"Pixel Representation is {signed}")
    if stored is None:
        warnings.append(_absent("Bits Stored"))
        stored = bits if high is None else high + 1
    if not 0 < stored <= bits:
        raise RefusedError(Reason.CONTRADICTORY_PIXELS, f"Bits Stored is {stored} and Bits Allocated {bits}")
    if high is not None and not stored - 1 <= high < bits:
        detail = f"High Bit is {high}, Bits Stored {stored} and Bits Allocated {bits}"
        raise RefusedError(Reason.CONTRADICTORY_PIXELS, detail)
    if high is not None and high != stored - 1:
        warnings.append(Caution.UNUSUAL_HIGH_BIT.about(f"High Bit is {high} and Bits Stored {stored}"))
    return bits


def _check_samples(found: Elements, warnings: list[str]) -> int:
    """Return Samples per Pixel if they are those of the Photometric Interpretation (PS3.3 C.7.6.3.1.2)."""
    samples, photometric = number(found, tags.SAMPLES_PER_PIXEL), text(found, tags.PHOTOMETRIC_INTERPRETATION)
    if samples is None:
        warnings.append(_absent("Samples per Pixel"))
        samples = 1
    if not photometric:
        warnings.append(_absent("Photometric Interpretation"))
    if samples == 3 and number(found, tags.PLANAR_CONFIGURATION) is None:
        warnings.append(_absent("Planar Configuration"))
    if photometric in _RETIRED_COLOURS or samples == 4:
        detail = f"{samples} samples per pixel, Photometric Interpretation {coded(photometric)}"
        raise RefusedError(Reason.UNSUPPORTED_PIXELS, detail)
    expected = {1} if photometric in _ONE_SAMPLE else {3} if photometric in _THREE_SAMPLES else {1, 3}
    if samples not in expected:
        detail = f"{samples} samples per pixel, Photometric Interpretation {coded(photometric) or 'absent'}"
        raise RefusedError(Reason.CONTRADICTORY_PIXELS, detail)
    if photometric and len(expected) > 1:
        detail = f"Photometric Interpretation is {coded(photometric)!r}"
        warnings.append(Caution.UNKNOWN_PHOTOMETRIC_INTERPRETATION.about(detail))
    return samples


def _absent(name: str) -> str:
    return Caution.MISSING_PIXEL_DESCRIPTION.about(f"{name} is absent")


def _decoded_bytes(found: Elements, matrix: PixelMatrix, samples: int, bits: int) -> int:
    """Bytes of the pixels when they are not compressed (PS3.3 C.7.6.3.1, PS3.5 8.2)."""
    doubled = 2 * samples
    if samples == 3:
        # Chrominance is stored for every second pixel, or for every fourth.
        doubled = {"YBR_FULL_422": 4, "YBR_PARTIAL_422": 4, "YBR_PARTIAL_420": 3}.get(
            text(found, tags.PHOTOMETRIC_INTERPRETATION), 6
        )
    return (matrix.rows * matrix.columns * matrix.frames * doubled * bits + 15) // 16


def _check_length(pixels: Pixels, rest: int, needed: int, matrix: PixelMatrix, warnings: list[str]) -> None:
    """Check the length of pixels that are not compressed against their number, and the `rest` of the object."""
    announced = pixels.length or 0
    present = min(rest, announced)
    if present < needed:
        what = f"{matrix.rows} x {matrix.columns} x {matrix.frames} frames need {needed}"
        raise RefusedError(Reason.TRUNCATED, f"{present} bytes of pixels, {what}")
    if announced > present:
        raise RefusedError(Reason.TRUNCATED, f"{present} bytes of pixels, {announced} are announced")
    if announced > needed + 1:  # one byte makes the length even
        warnings.append(Caution.SURPLUS_PIXELS.about(f"{announced} bytes of pixels, and {needed} are needed"))


def _check_fragments(found: Elements, size: int, fragments: Fragments, frames: int, warnings: list[str]) -> None:
    """Check how encapsulated pixels begin, and their offset tables, as far as that is seen without reading them."""
    if fragments.problem:
        raise RefusedError(Reason.INVALID_FRAGMENTS, fragments.problem)
    if fragments.ends_early:
        raise RefusedError(Reason.TRUNCATED, "the object ends before the first fragment of its pixels")
    extended, problem = _extended_offsets(found, frames)
    if not problem and extended and fragments.entries:
        problem = "there are a Basic and an Extended Offset Table"
    problem = problem or offset_table_problem(fragments, frames)
    if problem and frames > 1:
        raise RefusedError(Reason.INVALID_FRAGMENTS, problem)
    if problem:
        warnings.append(Caution.ODD_OFFSET_TABLE.about(problem))
    # Each frame has at least one fragment, and the last one begins where the table says.
    offsets = [] if problem else [*fragments.offsets, *extended]
    last = max([8 + fragments.first_length, 8 * frames, *(offset + 8 for offset in offsets)])
    end = fragments.begin + last
    if end > size:
        detail = f"the object has {size} bytes, and the fragments of {frames} frames end at byte {end} at the earliest"
        raise RefusedError(Reason.TRUNCATED, detail)


def _extended_offsets(found: Elements, frames: int) -> tuple[tuple[int, ...], str]:
    """Return what the Extended Offset Table holds, empty where it is absent or too long to be read, and its problem."""
    for tag in (tags.EXTENDED_OFFSET_TABLE, tags.EXTENDED_OFFSET_TABLE_LENGTHS):
        length = found.unread.get(tag, len(found.values.get(tag, b"")))
        if length not in {0, 8 * frames}:
            return (), f"{elements.name(tag)} has {length} bytes for {frames} frames"
    value = found.values.get(tags.EXTENDED_OFFSET_TABLE, b"")
    return struct.unpack(f"<{len(value) // 8}Q", value), ""
