"""Opening an image file: quickly where nothing about it is unusual, by pydicom otherwise, with its claims checked."""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import pydicom
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from voxelmill_shared.imaging.image import HEADER_ERRORS, DicomImage, PixelKeyword, opened
from voxelmill_shared.imaging.reasons import Unsupported
from voxelmill_shared.imaging.transform import Padding
from voxelmill_shared.imaging.walker import walk
from voxelmill_shared.privacy import unquoted

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset

    from voxelmill_shared.imaging.walker import Walked

MAX_FRAME_PIXELS = 1 << 28
"""The largest frame that is read: 16,384 squared, above any detector."""
MAX_FRAMES = 1 << 20
MAX_EXPANSION = 5_000
"""The most that compressed pixels may grow, once they claim more than `_FREE_BYTES`. A black frame of 512 squared
in JPEG 2000 expands 2,600-fold; a lie expands a million-fold."""
_FREE_BYTES = 64 << 20
MAX_INFLATED = 128 << 20
"""Bytes of a data set that is deflated as a whole: pydicom holds it in memory six times over while it reads it."""
_KEYWORDS: dict[int, PixelKeyword] = {
    0x7FE00008: "FloatPixelData",
    0x7FE00009: "DoubleFloatPixelData",
    0x7FE00010: "PixelData",
}
_UNDEFINED_LENGTH = 0xFFFFFFFF
_HEAD_BYTES = 32 << 10
"""What is read of a file to find its pixel data: 95 of 100 headers take less than 7 KiB."""


@dataclass(frozen=True, slots=True)
class _Element:
    """Where the value of the pixel data element lies in the file; no `offset`: within a deflated data set."""

    keyword: PixelKeyword
    offset: int | None
    length: int
    compressed: bool


def open_image(source: Path | bytes, name: str = "") -> DicomImage:
    """Read the header of an image file and check what it claims against the file, before anything is allocated.

    Parameters
    ----------
    source
        The file, or its bytes.
    name
        What to call it in messages; the file's name if left out.

    Raises
    ------
    UnsupportedSeriesError
        With the code `unreadable-header`, `not-an-image`, `truncated-pixels` or `implausible-size`.
    """
    if isinstance(source, bytes):
        name, head, size = name or "an image", source, len(source)
    else:
        name = name or source.name
        with source.open("rb", buffering=0) as file:
            head, size = file.read(_HEAD_BYTES), os.fstat(file.fileno()).st_size
    walked = walk(head)
    image = None if walked is None else _quickly(source, name, walked, size)
    if image is None:
        image = read_with_pydicom(source, name)
    else:
        _check_size(image)
    return image


def read_with_pydicom(source: Path | bytes, name: str) -> DicomImage:
    """Do what `open_image` does, by pydicom: for whatever is unusual, and as the referee of what is quick."""
    try:
        _check_inflated(source, name)
        with opened(source) as file:
            header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
            little = header.original_encoding[1] is not False
            syntax = header.file_meta.get("TransferSyntaxUID")
            transfer_syntax = UID(syntax) if syntax else ImplicitVRLittleEndian
            deflated = transfer_syntax == DeflatedExplicitVRLittleEndian
            element = _deflated_element(source) if deflated else _element(file, little_endian=little)
        if element is None:
            raise Unsupported.NOT_AN_IMAGE.error(f"{name}: there are no pixels in it")
        image = _describe(source, name, header, transfer_syntax, element, little_endian=little)
    except (*HEADER_ERRORS, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the machine's fault; pydicom's own, for sequences that end too soon, have no number
        raise Unsupported.UNREADABLE_HEADER.error(
            f"{name}: the header cannot be read ({type(error).__name__}: {unquoted(error)})"
        ) from None
    _check_size(image)
    return image


def _quickly(source: Path | bytes, name: str, walked: Walked, size: int) -> DicomImage | None:
    """Describe an image from what the quick reader found, or None where a value is not plain."""
    elements = walked.elements
    layout = _cells(*(elements.get(keyword) for keyword in _CELLS))
    if layout is None:
        return None
    compressed = walked.length == _UNDEFINED_LENGTH
    rest = size - walked.offset
    return DicomImage(
        source,
        name,
        elements,
        _uid(walked.transfer_syntax),
        *layout,
        "PixelData",
        True,
        compressed,
        walked.offset,
        rest if compressed else min(walked.length, rest),
    )


_CELLS = (
    "Rows", "Columns", "BitsAllocated", "PixelRepresentation", "BitsStored", "HighBit", "SamplesPerPixel",
    "PhotometricInterpretation", "NumberOfFrames", "PixelPaddingValue", "PixelPaddingRangeLimit",
)  # fmt: skip

_Cells: TypeAlias = "tuple[int, int, int, int, int, int, int, bool, bool, str, Padding | None]"


@lru_cache(maxsize=64)
def _cells(*values: bytes | None) -> _Cells | None:
    """Turn the values of `_CELLS` into those of `DicomImage`; the slices of a series share them."""
    photometric, frames = values[7], values[8]
    numbers = [values[n] for n in (0, 1, 2, 3, 4, 5, 6, 9, 10)]
    if any(value is not None and len(value) != 2 for value in numbers) or None in numbers[:4]:
        return None
    if photometric is None or not photometric.strip(b"\0 ") or (frames or b"1").strip(b"\0 ") != b"1":
        return None
    rows, columns, allocated, signed, stored, high, samples, padding, limit = (
        None if value is None else int.from_bytes(value, "little") for value in numbers
    )
    if not (rows and columns and allocated and samples in {None, 1}) or signed not in {0, 1}:
        return None
    stored = allocated if stored is None else stored
    fill = None if padding is None else Padding.between(padding, limit, signed=bool(signed), bits_allocated=allocated)
    return (
        rows,
        columns,
        1,
        1,
        allocated,
        stored,
        stored - 1 if high is None else high,
        bool(signed),
        False,
        photometric.decode("latin-1").strip("\0 "),
        fill,
    )


@lru_cache(maxsize=64)
def _uid(value: bytes) -> UID:
    return UID(value.decode("latin-1"))


def _element(file: BinaryIO, *, little_endian: bool) -> _Element | None:
    """Read the head of the pixel data element that `file` stands at; the value ends with the file at the latest."""
    order = "<" if little_endian else ">"
    position = file.tell()
    head = file.read(12)
    if len(head) < 8:
        return None
    group, element = struct.unpack_from(order + "HH", head)
    keyword = _KEYWORDS.get(group << 16 | element)
    if keyword is None:
        return None
    # Some files are explicit where their syntax says implicit, or the reverse. The head tells: read as an implicit
    # length, each of these names would be an odd number, and lengths are even (PS3.5 7.1.1).
    size = 12 if head[4:6] in {b"OB", b"OW", b"OF", b"OD", b"UN"} else 8
    if len(head) < size:
        return None
    (length,) = struct.unpack_from(order + "I", head, size - 4)
    rest = file.seek(0, os.SEEK_END) - position - size
    if length == _UNDEFINED_LENGTH:
        return _Element(keyword, position + size, rest, compressed=True)
    return _Element(keyword, position + size, min(length, rest), compressed=False)


def _check_inflated(source: Path | bytes, name: str) -> None:
    """Refuse a deflated data set that is too large, before pydicom inflates all of it at once (PS3.5 A.5)."""
    with opened(source) as file:
        if DeflatedExplicitVRLittleEndian.encode() not in file.read(_HEAD_BYTES):
            return
        file.seek(0)
        read_preamble(file, force=True)
        read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, _, __: tag.group != 2)
        unpacker, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while packed := unpacker.unconsumed_tail or file.read(_HEAD_BYTES):
            size += len(unpacker.decompress(packed, 1 << 20))
            if size > MAX_INFLATED:
                raise Unsupported.IMPLAUSIBLE_SIZE.error(
                    f"{name}: its deflated data set is more than {MAX_INFLATED >> 20} MiB, which is more than is read"
                )


def _deflated_element(source: Path | bytes) -> _Element | None:
    with opened(source) as file:
        whole = pydicom.dcmread(file, force=True)
    for keyword in _KEYWORDS.values():
        if keyword in whole:
            return _Element(keyword, None, len(whole[keyword].value), compressed=False)
    return None


def _describe(
    source: Path | bytes, name: str, header: Dataset, transfer_syntax: UID, element: _Element, *, little_endian: bool
) -> DicomImage:
    def number(name: str, default: int) -> int:
        value = header.get(name)
        return default if value in (None, "") else int(value)

    default_bits = {"PixelData": 16, "FloatPixelData": 32, "DoubleFloatPixelData": 64}[element.keyword]
    allocated = number("BitsAllocated", default_bits)
    stored = number("BitsStored", allocated)
    samples = number("SamplesPerPixel", 1)
    signed = bool(number("PixelRepresentation", 0))
    image = DicomImage(
        source=source,
        name=name,
        elements=None,
        transfer_syntax=transfer_syntax,
        rows=number("Rows", 0),
        columns=number("Columns", 0),
        samples=samples,
        frames=number("NumberOfFrames", 1) or 1,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=number("HighBit", stored - 1),
        signed=signed,
        planar=bool(number("PlanarConfiguration", 0)),
        photometric=str(header.get("PhotometricInterpretation") or ("RGB" if samples == 3 else "MONOCHROME2")),
        padding=Padding.of(header, signed=signed, bits_allocated=allocated),
        keyword=element.keyword,
        little_endian=little_endian,
        compressed=element.compressed,
        value_offset=element.offset,
        value_length=element.length,
    )
    image.header = header
    return image


def _check_size(image: DicomImage) -> None:
    if image.rows < 1 or image.columns < 1:
        raise Unsupported.NOT_AN_IMAGE.error(f"{image.name}: it has no Rows or no Columns")
    if image.bits_allocated not in {1, 8, 16, 32, 64} or not 0 < image.bits_stored <= image.bits_allocated:
        raise Unsupported.UNREADABLE_HEADER.error(
            f"{image.name}: {image.bits_stored} bits stored in {image.bits_allocated} allocated make no sense"
        )
    if image.samples not in {1, 3} or image.frames < 1 or image.high_bit >= image.bits_allocated:
        raise Unsupported.UNREADABLE_HEADER.error(
            f"{image.name}: {image.samples} samples per pixel, {image.frames} frames, high bit {image.high_bit}"
        )
    if image.rows * image.columns > MAX_FRAME_PIXELS or image.frames > MAX_FRAMES:
        raise Unsupported.IMPLAUSIBLE_SIZE.error(
            f"{image.name}: {image.frames} frames of {image.rows} x {image.columns} are more than is read"
        )
    expected = image.frame_bytes * image.frames
    if image.bits_allocated == 1:
        expected = (image.rows * image.columns * image.frames + 7) // 8
    if not image.compressed:
        if image.value_length < expected:
            raise Unsupported.TRUNCATED_PIXELS.error(
                f"{image.name}: the pixels need {expected:,} bytes and there are {image.value_length:,}"
            )
    elif expected > _FREE_BYTES and expected > image.value_length * MAX_EXPANSION:
        raise Unsupported.IMPLAUSIBLE_SIZE.error(
            f"{image.name}: {image.value_length:,} compressed bytes cannot hold {expected:,} bytes of pixels"
        )
