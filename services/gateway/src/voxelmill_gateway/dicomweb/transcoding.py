"""From the transfer syntax that an object has to Explicit VR Little Endian. Runs in a child process."""

from __future__ import annotations

import struct
import warnings
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydicom import FileDataset
from pydicom.uid import ExplicitVRLittleEndian

from voxelmill_shared.imaging.decoding import decode_cells, stored_values
from voxelmill_shared.imaging.image import HEADER_ERRORS
from voxelmill_shared.imaging.opening import open_image
from voxelmill_shared.imaging.reasons import Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from voxelmill_shared.imaging.image import DicomImage

MAX_VALUE: Final = 0xFFFFFFFE
"""The longest value of an element with a length of 32 bits (PS3.5 7.1.1)."""
_CELLS_AS_THEY_ARE: Final = frozenset({"1.2.840.10008.1.2.5", "1.2.840.10008.1.2.8.1"})
"""These compress whole cells; what they decode to is what would stand in the file."""
_GONE: Final = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")


def frames_of(path: Path, frames: Sequence[int], *, decode: bool) -> list[bytes]:
    """Return frames of an image.

    Parameters
    ----------
    path
        The file.
    frames
        Their numbers, from 0.
    decode
        False: as they are stored. True: as Explicit VR Little Endian holds them, pixel by pixel.

    Raises
    ------
    UnsupportedSeriesError
        If the file is no image, has no such frame, or a frame cannot be decoded.
    """
    image = open_image(path, "the object")
    if any(frame >= image.frames for frame in frames):
        raise Unsupported.TRUNCATED_PIXELS.error(f"it has {image.frames} frames")
    encoded = image.encoded(frames)
    if not decode or _is_native(image):
        return [bytes(one) for one in encoded]
    return [_native(image, frame, one)[0] for frame, one in zip(frames, encoded, strict=True)]


def transcode(path: Path, output: Path) -> None:
    """Write an object in Explicit VR Little Endian, frame by frame: no more than one is held decoded.

    Raises
    ------
    UnsupportedSeriesError
        If it cannot be decoded, or is larger than an element may be.
    """
    image = open_image(path, "the object")
    size = image.frame_bytes * image.frames
    if image.bits_allocated == 1:
        size = (image.rows * image.columns * image.frames + 7) // 8
    if size > MAX_VALUE:
        raise Unsupported.IMPLAUSIBLE_SIZE.error(f"its pixels are {size:,} bytes, more than an element may have")
    with warnings.catch_warnings(action="ignore"):
        try:
            _write(image, size, output)
        except HEADER_ERRORS as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise Unsupported.UNREADABLE_HEADER.error(
                f"its header cannot be written anew ({type(error).__name__})"
            ) from None


def _write(image: DicomImage, size: int, output: Path) -> None:
    header = image.header
    frames = _frames(image)
    first, photometric = next(frames)
    for keyword in _GONE:
        header.pop(keyword, None)
    if image.samples > 1:
        header.PhotometricInterpretation = photometric
        if not _is_native(image):
            header.PlanarConfiguration = 0
    _save(header, output)
    vr = b"OW" if image.bits_allocated > 8 else b"OB"
    element = {"PixelData": 0x7FE00010, "FloatPixelData": 0x7FE00008, "DoubleFloatPixelData": 0x7FE00009}
    if image.keyword != "PixelData":
        vr = b"OF" if image.keyword == "FloatPixelData" else b"OD"
    tag = element[image.keyword]
    with output.open("ab") as file:
        file.write(struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, size + size % 2))
        file.write(first)
        for frame, _ in frames:
            file.write(frame)
        file.write(bytes(size % 2))


def _save(header: Any, output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    meta = header.file_meta
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    FileDataset(output, header, preamble=bytes(128), file_meta=meta).save_as(
        output, implicit_vr=False, little_endian=True, enforce_file_format=True
    )


def _frames(image: DicomImage) -> Iterator[tuple[bytes, str]]:
    """Give each frame as it stands in the file that is written, and what its samples mean."""
    if image.bits_allocated == 1 and not image.compressed:
        # Frames of single bits follow each other without gaps (PS3.5 8.1.1): all of them are one piece.
        yield image.whole().PixelData[: (image.rows * image.columns * image.frames + 7) // 8], image.photometric
        return
    every = image.encoded(range(image.frames)) if image.compressed else None
    for frame in range(image.frames):
        encoded = image.encoded([frame])[0] if every is None else every[frame]
        yield (bytes(encoded), image.photometric) if _is_native(image) else _native(image, frame, encoded)


def _is_native(image: DicomImage) -> bool:
    """Whether the frames stand in the file as in one of Explicit VR Little Endian."""
    return not image.compressed and (image.little_endian or image.bits_allocated == 1)


def _native(image: DicomImage, frame: int, encoded: bytes | memoryview) -> tuple[bytes, str]:
    """Decode a frame to cells, in little-endian order, colour by pixel."""
    if image.subsampled:  # and big endian: retired twice over
        raise Unsupported.UNDECODABLE_PIXELS.error("its pixels share their chrominance, in big-endian words")
    cells, photometric = decode_cells(image, frame, encoded)
    if image.compressed and image.transfer_syntax not in _CELLS_AS_THEY_ARE:
        cells = stored_values(image, cells)
    if image.bits_allocated == 1:
        return np.packbits(cells.astype(np.uint8).ravel(), bitorder="little").tobytes(), photometric
    kind = f"<{cells.dtype.kind}{max(1, image.bits_allocated // 8)}"
    return np.ascontiguousarray(cells).astype(kind, copy=False).tobytes(), photometric
