"""One DICOM image file: its header, what the pixels need to be read, and the pixels' bytes, frame by frame."""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal

import pydicom
from pydicom.encaps import generate_frames, get_frame
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from voxelmill_shared.imaging.reasons import Unsupported
from voxelmill_shared.imaging.transform import Padding

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydicom import Dataset

# A wrong value in an element that nobody asks for is no reason to stop or to complain; the elements that are needed
# are checked here.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

HEADER_ERRORS = (
    BytesLengthException,
    InvalidDicomError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom raises on headers that are broken in one way or another."""

MAX_FRAME_PIXELS = 1 << 28
"""The largest frame that is read: 16,384 squared, above any detector."""
MAX_FRAMES = 1 << 20
MAX_EXPANSION = 5_000
"""The most that compressed pixels may grow, once they claim more than `_FREE_BYTES`. A black frame of 512 squared
in JPEG 2000 expands 2,600-fold; a lie expands a million-fold."""
_FREE_BYTES = 64 << 20

PixelKeyword = Literal["PixelData", "FloatPixelData", "DoubleFloatPixelData"]
_KEYWORDS: dict[int, PixelKeyword] = {
    0x7FE00008: "FloatPixelData",
    0x7FE00009: "DoubleFloatPixelData",
    0x7FE00010: "PixelData",
}
_UNDEFINED_LENGTH = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class _Element:
    """Where the value of the pixel data element lies in the file; no `offset`: within a deflated data set."""

    keyword: PixelKeyword
    offset: int | None
    length: int
    compressed: bool


@dataclass(frozen=True, eq=False)
class DicomImage:
    """An image file whose header has been read and whose claims about its size have been checked.

    Attributes
    ----------
    header
        The data set without its pixels.
    rows, columns, samples, frames
        The size of the pixels (PS3.3 C.7.6.3, C.7.6.6).
    bits_allocated, bits_stored, high_bit, signed
        How a stored value lies in its cell (PS3.5 8.1.1).
    photometric
        Photometric Interpretation (PS3.3 C.7.6.3.1.2), `MONOCHROME2`.
    padding
        The stored values that are no image.
    keyword
        Which of the three kinds of pixel data there are.
    little_endian
        The byte order of pixels that are not compressed.
    compressed
        Whether each frame is a codestream. Told by the element's undefined length (PS3.5 A.4) and not by the transfer
        syntax, which may be younger than any list of them.
    """

    path: Path
    header: Dataset
    transfer_syntax: UID
    rows: int
    columns: int
    samples: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    planar: bool
    photometric: str
    padding: Padding | None
    keyword: PixelKeyword
    little_endian: bool
    compressed: bool
    value_offset: int | None
    value_length: int

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return self.path.name

    def text(self, keyword: str) -> str:
        """Return an element as text, empty where it is absent.

        Raises
        ------
        UnsupportedSeriesError
            If the element cannot be read.
        """
        try:
            return str(self.header.get(keyword) or "")
        except HEADER_ERRORS as error:
            raise Unsupported.UNREADABLE_HEADER.error(f"{self.name}: {keyword} cannot be read ({error})") from None

    @property
    def frame_bytes(self) -> int:
        """The bytes of one frame that is not compressed (PS3.5 8.2), rounded up."""
        samples = 2 if self.photometric == "YBR_FULL_422" and not self.compressed else self.samples
        return (self.rows * self.columns * samples * self.bits_allocated + 7) // 8

    def functional_group(self, frame: int, keyword: str) -> Dataset | None:
        """Return the item of a functional group macro for a frame, its own or the shared one (PS3.3 C.7.6.16)."""
        own = self.header.get("PerFrameFunctionalGroupsSequence") or []
        shared = self.header.get("SharedFunctionalGroupsSequence") or []
        for groups in ([own[frame]] if frame < len(own) else []), shared[:1]:
            for group in groups:
                if group.get(keyword):
                    item: Dataset = group.get(keyword)[0]
                    return item
        return None

    def encoded(self, frames: Sequence[int]) -> list[bytes]:
        """Read the bytes of some frames, each a codestream or raw cells.

        Raises
        ------
        UnsupportedSeriesError
            If there are no bytes for one of the frames.
        """
        value = self._read_value()
        if not self.compressed:
            return [_cut(self, value, frame) for frame in frames]
        table = self.header.get("ExtendedOffsetTable"), self.header.get("ExtendedOffsetTableLengths")
        offsets = table if all(table) else None
        try:
            if len(frames) == 1:
                return [get_frame(value, frames[0], number_of_frames=self.frames, extended_offsets=offsets)]
            every = list(generate_frames(value, number_of_frames=self.frames, extended_offsets=offsets))
            return [every[frame] for frame in frames]
        except HEADER_ERRORS as error:
            raise Unsupported.TRUNCATED_PIXELS.error(
                f"{self.name}: not all of the {self.frames} frames are in the pixel data ({error})"
            ) from None

    def _read_value(self) -> bytes:
        if self.value_offset is None:  # the whole data set is deflated, so no place in the file can be sought
            value: bytes = pydicom.dcmread(self.path, force=True).get(self.keyword, b"")
            return value
        with self.path.open("rb") as file:
            file.seek(self.value_offset)
            return file.read(self.value_length)


def _cut(image: DicomImage, value: bytes, frame: int) -> bytes:
    if image.bits_allocated == 1:  # frames of single bits follow each other without gaps (PS3.5 8.1.1)
        first = frame * image.rows * image.columns
        last = first + image.rows * image.columns
        if first % 8:
            bits = int.from_bytes(value[first // 8 : (last + 7) // 8], "little") >> (first % 8)
            return (bits & ((1 << (last - first)) - 1)).to_bytes(image.frame_bytes, "little")
        return value[first // 8 : (last + 7) // 8]
    return value[frame * image.frame_bytes : (frame + 1) * image.frame_bytes]


def open_image(path: Path) -> DicomImage:
    """Read the header of an image file and check what it claims against the file, before anything is allocated.

    Raises
    ------
    UnsupportedSeriesError
        With the code `unreadable-header`, `not-an-image`, `truncated-pixels` or `implausible-size`.
    """
    try:
        with path.open("rb") as file:
            header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
            little = header.original_encoding[1] is not False
            syntax = header.file_meta.get("TransferSyntaxUID")
            transfer_syntax = UID(syntax) if syntax else ImplicitVRLittleEndian
            deflated = transfer_syntax == DeflatedExplicitVRLittleEndian
            element = _deflated_element(path) if deflated else _element(file, little_endian=little)
        if element is None:
            raise Unsupported.NOT_AN_IMAGE.error(f"{path.name}: there are no pixels in it")
        image = _describe(path, header, transfer_syntax, element, little_endian=little)
    except (*HEADER_ERRORS, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the machine's fault; pydicom's own, for sequences that end too soon, have no number
        raise Unsupported.UNREADABLE_HEADER.error(
            f"{path.name}: the header cannot be read ({type(error).__name__}: {error})"
        ) from None
    _check_size(image)
    return image


def _element(file: BinaryIO, *, little_endian: bool) -> _Element | None:
    """Read the head of the pixel data element that `file` stands at; the value ends with the file at the latest."""
    order = "<" if little_endian else ">"
    position = file.tell()
    head = file.read(12)
    if len(head) < 12:
        return None
    group, element = struct.unpack_from(order + "HH", head)
    keyword = _KEYWORDS.get(group << 16 | element)
    if keyword is None:
        return None
    # Some files are explicit where their syntax says implicit, or the reverse. The head tells: read as an implicit
    # length, each of these names would be an odd number, and lengths are even (PS3.5 7.1.1).
    size = 12 if head[4:6] in {b"OB", b"OW", b"OF", b"OD", b"UN"} else 8
    (length,) = struct.unpack_from(order + "I", head, size - 4)
    rest = os.fstat(file.fileno()).st_size - position - size
    if length == _UNDEFINED_LENGTH:
        return _Element(keyword, position + size, rest, compressed=True)
    return _Element(keyword, position + size, min(length, rest), compressed=False)


def _deflated_element(path: Path) -> _Element | None:
    whole = pydicom.dcmread(path, force=True)
    for keyword in _KEYWORDS.values():
        if keyword in whole:
            return _Element(keyword, None, len(whole[keyword].value), compressed=False)
    return None


def _describe(
    path: Path, header: Dataset, transfer_syntax: UID, element: _Element, *, little_endian: bool
) -> DicomImage:
    def number(name: str, default: int) -> int:
        value = header.get(name)
        return default if value in (None, "") else int(value)

    default_bits = {"PixelData": 16, "FloatPixelData": 32, "DoubleFloatPixelData": 64}[element.keyword]
    allocated = number("BitsAllocated", default_bits)
    stored = number("BitsStored", allocated)
    samples = number("SamplesPerPixel", 1)
    signed = bool(number("PixelRepresentation", 0))
    return DicomImage(
        path=path,
        header=header,
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
