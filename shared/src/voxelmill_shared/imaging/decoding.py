"""From a frame's bytes to its stored values, for every transfer syntax that some decoder here knows.

The decoders are imagecodecs (JPEG, JPEG-LS, JPEG 2000, HTJ2K) and pylibjpeg-rle, which release the GIL, so frames
are decoded in threads. pydicom with whatever plugins are installed (but GDCM) is asked where these fail, and is the
referee in the tests.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from typing import TYPE_CHECKING, Any, TypeAlias

import imagecodecs
import numpy as np
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import expand_ybr422, pixel_array
from rle.rle import decode_frame as decode_rle

from voxelmill_shared.imaging.codestream import Codestream, read_codestream
from voxelmill_shared.imaging.reasons import Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from pydicom.uid import UID

    from voxelmill_shared.imaging.image import DicomImage

Stored: TypeAlias = "NDArray[Any]"
"""Stored values: (rows, columns) or (rows, columns, 3), of the smallest integer type that holds Bits Allocated."""

_DECODER_ERRORS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What decoders raise on bytes that they cannot read; imagecodecs' own errors are RuntimeError."""

_JPEG = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 53, 55, 57, 70))
_JPEG_LS = frozenset({"1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"})
_JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 92, 93))
_HTJ2K = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (201, 202, 203))
_RLE = "1.2.840.10008.1.2.5"
_DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
DECODED = _JPEG | _JPEG_LS | _JPEG_2000 | _HTJ2K | {_RLE, _DEFLATED_FRAMES}
"""The encapsulated transfer syntaxes that there are decoders for here; ingest takes these and no others."""
_CELLS_AS_THEY_ARE = frozenset({_RLE, _DEFLATED_FRAMES})
"""These compress whole cells, with whatever High Bit leaves below the value; the others compress the value alone."""
_ENDS_UNSEEN = _JPEG | _HTJ2K
"""The decoders of these make up what is missing of a codestream that was cut off."""
_END_MARKER = b"\xff\xd9"
_MOST_AFTER_END = 64


def decoding_threads() -> int:
    """Return how many threads decode: one per processor that this process may use."""
    return len(os.sched_getaffinity(0))


def decode(image: DicomImage, frame: int, encoded: bytes | memoryview) -> tuple[Stored, str]:
    """Decode one frame.

    Parameters
    ----------
    image
        The image that the frame is of.
    frame
        Its number from 0, for messages.
    encoded
        Its bytes (`DicomImage.encoded`).

    Returns
    -------
    tuple
        The stored values, masked to Bits Stored and with their sign; and the photometric interpretation that they
        have now, which is RGB where a decoder has undone a colour transform.

    Raises
    ------
    UnsupportedSeriesError
        With the code `undecodable-pixels`.
    """
    cells, photometric = decode_cells(image, frame, encoded)
    return stored_values(image, cells), photometric


def decode_cells(image: DicomImage, frame: int, encoded: bytes | memoryview) -> tuple[Stored, str]:
    """Decode one frame to its cells, as `decode` does but before the stored value is taken out of each.

    The same parameters and errors as `decode`.
    """
    try:
        cells, photometric = _decode(image, encoded)
    except _DECODER_ERRORS as error:
        cells, photometric = _ask_pydicom(image, frame, error)
    shape = (image.rows, image.columns, *((3,) if image.samples == 3 else ()))
    if cells.shape != shape:
        raise Unsupported.UNDECODABLE_PIXELS.error(
            f"{image.name}: frame {frame + 1} decodes to {cells.shape} instead of {shape}"
        )
    return cells, photometric


def _decode(image: DicomImage, encoded: bytes | memoryview) -> tuple[Stored, str]:
    if not image.compressed:
        return _read_native(image, encoded)
    if image.transfer_syntax == _DEFLATED_FRAMES:
        return _read_native(image, zlib.decompressobj(-zlib.MAX_WBITS).decompress(encoded, image.frame_bytes))
    if image.transfer_syntax == _RLE:
        return _read_rle(image, bytes(encoded))
    encoded = bytes(encoded)
    claim = read_codestream(encoded)
    if claim is None:
        raise ValueError("there is no codestream of a known kind")
    if (claim.rows, claim.columns, claim.components) != (image.rows, image.columns, image.samples):
        raise ValueError(
            f"the codestream is {claim.rows} x {claim.columns} x {claim.components}, "
            f"the header says {image.rows} x {image.columns} x {image.samples}"
        )
    if image.transfer_syntax in _ENDS_UNSEEN and _END_MARKER not in encoded[-_MOST_AFTER_END:]:
        raise Unsupported.TRUNCATED_PIXELS.error(f"{image.name}: a codestream was cut off: it has no end marker")
    return _decoder(image.transfer_syntax)(image, encoded, claim)


def _decoder(transfer_syntax: str) -> Callable[[DicomImage, bytes, Codestream], tuple[Stored, str]]:
    if transfer_syntax in _JPEG:
        return _read_jpeg
    if transfer_syntax in _JPEG_LS:
        return lambda image, encoded, _: (imagecodecs.jpegls_decode(encoded), image.photometric)
    if transfer_syntax in _JPEG_2000:
        return lambda image, encoded, _: (imagecodecs.jpeg2k_decode(encoded), _untransformed(image))
    if transfer_syntax in _HTJ2K:
        return lambda image, encoded, _: (imagecodecs.htj2k_decode(encoded), _untransformed(image))
    raise NotImplementedError(f"no decoder for transfer syntax {transfer_syntax}")


def _untransformed(image: DicomImage) -> str:
    # A JPEG 2000 decoder undoes the component transform that YBR_RCT and YBR_ICT name (PS3.5 8.2.4).
    return "RGB" if image.photometric in {"YBR_RCT", "YBR_ICT"} else image.photometric


def _read_jpeg(image: DicomImage, encoded: bytes, claim: Codestream) -> tuple[Stored, str]:
    if image.samples == 1 or image.transfer_syntax.endswith((".57", ".70")):
        return imagecodecs.jpeg8_decode(encoded), image.photometric
    # The markers know better than the header: JFIF is YCbCr whatever the header says, and converters forget to
    # rewrite the header. Without markers the header holds.
    ycbcr = image.photometric.startswith("YBR") if claim.ycbcr is None else claim.ycbcr
    space = "YCBCR" if ycbcr else "RGB"
    return imagecodecs.jpeg8_decode(encoded, colorspace=space, outcolorspace="RGB"), "RGB"


def _read_rle(image: DicomImage, encoded: bytes) -> tuple[Stored, str]:
    try:
        decoded = decode_rle(encoded, image.rows * image.columns, image.bits_allocated, "<")
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # not importable, and not an Exception: Rust's index errors
            raise
        raise ValueError(f"broken RLE segments ({error})") from None
    cells = np.frombuffer(decoded, np.uint8)
    kind = np.dtype(f"<u{max(1, image.bits_allocated // 8)}")
    planes = cells.view(kind).reshape(-1, image.rows, image.columns)
    return (planes[0] if len(planes) == 1 else np.moveaxis(planes, 0, -1)), image.photometric


def _read_native(image: DicomImage, encoded: bytes | memoryview) -> tuple[Stored, str]:
    shape = (image.rows, image.columns)
    if image.bits_allocated == 1:
        bits = np.unpackbits(np.frombuffer(encoded, np.uint8), count=image.rows * image.columns, bitorder="little")
        return bits.reshape(shape), image.photometric
    order = "<" if image.little_endian else ">"
    if image.bits_allocated == 8 and not image.little_endian:
        raise NotImplementedError("big-endian words of 8-bit cells")  # pydicom knows how these are swapped
    if image.keyword != "PixelData":
        kind = "f4" if image.keyword == "FloatPixelData" else "f8"
    else:
        kind = f"u{image.bits_allocated // 8}"
    if image.subsampled:
        encoded = expand_ybr422(bytes(encoded), image.bits_allocated)
    cells: Stored = np.frombuffer(encoded, np.dtype(order + kind), image.rows * image.columns * image.samples)
    if image.samples == 1:
        return cells.reshape(shape), image.photometric
    if image.planar:
        return np.moveaxis(cells.reshape(image.samples, *shape), 0, -1), image.photometric
    return cells.reshape(*shape, image.samples), image.photometric


def _ask_pydicom(image: DicomImage, frame: int, first: Exception) -> tuple[Stored, str]:
    for plugin in _plugins_for(image.transfer_syntax):
        with contextlib.suppress(*_DECODER_ERRORS):
            whole = image.whole()
            if not whole.file_meta.get("TransferSyntaxUID"):
                whole.file_meta.TransferSyntaxUID = image.transfer_syntax
            return pixel_array(whole, index=frame, raw=True, decoding_plugin=plugin), _untransformed(image)
    raise Unsupported.UNDECODABLE_PIXELS.error(
        f"{image.name}: the pixels of frame {frame + 1} cannot be decoded as "
        f"{image.transfer_syntax.name}: {_one_line(first)}"
    )


def _plugins_for(transfer_syntax: UID) -> list[str]:
    """Return pydicom's decoders for a transfer syntax; an empty name is pydicom itself.

    Not GDCM, which other packages may have brought along: on some damaged frames it ends the process.
    """
    try:
        plugins = get_decoder(transfer_syntax).available_plugins
    except NotImplementedError:
        return []
    return [plugin for plugin in plugins if plugin != "gdcm"] or [""] * (not transfer_syntax.is_encapsulated)


def _one_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def stored_values(image: DicomImage, cells: Stored) -> Stored:
    """Take the stored value out of each cell: Bits Stored bits below High Bit, with their sign (PS3.5 8.1.1).

    Bits above may hold retired overlays, or a sign that was never extended.
    """
    if cells.dtype.kind == "f":
        return np.asarray(cells, cells.dtype.newbyteorder("="))
    width = max(image.bits_allocated, 8 * cells.dtype.itemsize)
    # A widening keeps the sign of a decoder that gives signed numbers, so the low bits are right either way.
    cells = np.asarray(cells).astype(np.dtype(f"{cells.dtype.kind}{width // 8}"), copy=False)
    unsigned: Stored = cells.view(f"u{width // 8}")
    bits = image.bits_stored
    low = image.high_bit + 1 - bits
    if low > 0 and (not image.compressed or image.transfer_syntax in _CELLS_AS_THEY_ARE):
        unsigned = unsigned >> low
    if image.signed:
        spare = width - bits
        signed = unsigned.view(f"i{width // 8}")
        extended: Stored = (signed << spare) >> spare if spare else signed
        return extended
    limit = (1 << bits) - 1
    if bits < width and unsigned.size and int(unsigned.max()) > limit:
        padding = image.padding
        if padding is None or padding.high <= limit or not padding.mask(unsigned[unsigned > limit]).all():
            unsigned = unsigned & unsigned.dtype.type(limit)
    return unsigned
