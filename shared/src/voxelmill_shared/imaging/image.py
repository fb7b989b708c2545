"""One DICOM image file: its header, what the pixels need to be read, and the pixels' bytes, frame by frame."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from functools import cached_property
from io import BufferedReader, BytesIO, FileIO
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

import pydicom
from pydicom.encaps import generate_frames, get_frame
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.uid import MPEGTransferSyntaxes

from voxelmill_shared.imaging.reasons import Unsupported
from voxelmill_shared.imaging.transform import decimal
from voxelmill_shared.imaging.walker import DOUBLES, KEYWORDS
from voxelmill_shared.privacy import unquoted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydicom import Dataset
    from pydicom.uid import UID

    from voxelmill_shared.imaging.transform import Padding

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
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom raises on headers that are broken in one way or another; OSError for sequences that end too soon, which
it reads when they are asked for. They are in memory by then: see `DicomImage.header`."""

_LARGE_READ = 1 << 16

PixelKeyword = Literal["PixelData", "FloatPixelData", "DoubleFloatPixelData"]
_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"


@dataclass(eq=False)
class DicomImage:
    """An image file whose header has been read and whose claims about its size have been checked.

    Not to be changed once made; it is not frozen because a series has thousands and freezing is what takes the time.

    Attributes
    ----------
    source
        The file, or its bytes.
    name
        The file's name, for messages.
    elements
        What the quick reader has kept (`walker.WANTED`), as bytes by keyword; None if pydicom has read the header.
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

    source: Path | bytes
    name: str
    elements: dict[str, bytes] | None
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

    @cached_property
    def header(self) -> Dataset:
        """The data set without its pixels.

        Raises
        ------
        UnsupportedSeriesError
            If pydicom cannot read it. What fails on the machine's side is an `OSError`: ask for the header first where
            `HEADER_ERRORS` are caught.
        """
        try:
            with opened(self.source) as file:
                return pydicom.dcmread(file, stop_before_pixels=True, force=True)
        except HEADER_ERRORS as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise Unsupported.UNREADABLE_HEADER.error(
                f"{self.name}: the header cannot be read ({type(error).__name__}: {unquoted(error)})"
            ) from None

    def text(self, keyword: str) -> str:
        """Return an element as text, empty where it is absent.

        Raises
        ------
        UnsupportedSeriesError
            If the element cannot be read.
        """
        if self.elements is not None and keyword in KEYWORDS:
            return self.elements.get(keyword, b"").decode("latin-1").strip("\0 ")
        header = self.header
        try:
            value = header.get(keyword) or ""
            return "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)
        except HEADER_ERRORS as error:
            raise Unsupported.UNREADABLE_HEADER.error(
                f"{self.name}: {keyword} cannot be read ({unquoted(error)})"
            ) from None

    def number(self, frame: int, keyword: str, group: str) -> float | None:
        """Return an element of a frame as a number: from a functional group, else from the data set.

        None where it is absent, or no single number.
        """
        try:
            if self.elements is not None:
                value = self.elements.get(keyword, b"")
                return struct.unpack("<d", value)[0] if keyword in DOUBLES else decimal(value.strip(b"\0 "))
            source: Any = self.functional_group(frame, group) if self.frames > 1 else None
            return decimal((self.header if source is None else source).get(keyword))
        except HEADER_ERRORS:
            return None

    @property
    def subsampled(self) -> bool:
        """Whether two pixels share their chrominance, four cells for both (PS3.3 C.7.6.3.1.2); not if compressed."""
        return not self.compressed and self.photometric in {"YBR_FULL_422", "YBR_PARTIAL_422"}

    @property
    def frame_bytes(self) -> int:
        """The bytes of one frame that is not compressed (PS3.5 8.2), rounded up."""
        samples = 2 if self.subsampled else self.samples
        return (self.rows * self.columns * samples * self.bits_allocated + 7) // 8

    def functional_group(self, frame: int, keyword: str) -> Dataset | None:
        """Return the item of a functional group macro for a frame, its own or the shared one (PS3.3 C.7.6.16)."""
        if self.elements is not None:
            return None  # the quick reader leaves files with functional groups to pydicom
        own = self.header.get("PerFrameFunctionalGroupsSequence") or []
        shared = self.header.get("SharedFunctionalGroupsSequence") or []
        for groups in ([own[frame]] if frame < len(own) else []), shared[:1]:
            for group in groups:
                if group.get(keyword):
                    item: Dataset = group.get(keyword)[0]
                    return item
        return None

    def encoded(self, frames: Sequence[int]) -> list[bytes | memoryview]:
        """Read the bytes of some frames, each a codestream or raw cells.

        Raises
        ------
        UnsupportedSeriesError
            If there are no bytes for one of the frames.
        """
        if not self.compressed:
            return self._read_native(frames)
        if self.transfer_syntax in MPEGTransferSyntaxes:
            raise Unsupported.UNDECODABLE_PIXELS.error(
                f"{self.name}: it is a video ({self.transfer_syntax.name}), of which single frames are not decoded"
            )
        value = self._read_value()
        if self.frames == 1 and list(frames) == [0] and (whole := _single_fragment(value)) is not None:
            return [whole]
        if _ends_within_fragment(value):
            raise Unsupported.TRUNCATED_PIXELS.error(f"{self.name}: the file ends within the pixel data")
        value = bytes(value)
        header = self.header
        try:
            table = header.get("ExtendedOffsetTable"), header.get("ExtendedOffsetTableLengths")
            offsets = table if all(table) else None
            if len(frames) == 1:
                return [get_frame(value, frames[0], number_of_frames=self.frames, extended_offsets=offsets)]
            every = list(generate_frames(value, number_of_frames=self.frames, extended_offsets=offsets))
            return [every[frame] for frame in frames]
        except HEADER_ERRORS as error:
            raise Unsupported.TRUNCATED_PIXELS.error(
                f"{self.name}: not all of the {self.frames} frames are in the pixel data ({unquoted(error)})"
            ) from None

    def whole(self) -> Dataset:
        """Read the data set with its pixels, by pydicom."""
        with opened(self.source) as file:
            return pydicom.dcmread(file, force=True)

    def _read_native(self, frames: Sequence[int]) -> list[bytes | memoryview]:
        """Read the cells of some frames, and of a file no more than these: it may hold hours of ultrasound."""
        if isinstance(self.source, bytes) or self.value_offset is None:
            value = self._read_value()
            return [_shifted(self, frame, value[slice(*_span(self, frame))]) for frame in frames]
        cells: list[bytes | memoryview] = []
        with self.source.open("rb", buffering=0) as file:
            for frame in frames:
                first, last = _span(self, frame)
                file.seek(self.value_offset + first)
                cells.append(_shifted(self, frame, file.read(last - first)))
        return cells

    def _read_value(self) -> bytes | memoryview:
        if self.value_offset is None:  # the whole data set is deflated, so no place in the file can be sought
            value: bytes = self.whole().get(self.keyword, b"")
            return value
        if isinstance(self.source, bytes):
            return memoryview(self.source)[self.value_offset : self.value_offset + self.value_length]
        with self.source.open("rb") as file:
            file.seek(self.value_offset)
            return file.read(self.value_length)


class _Reader(BufferedReader):
    """A file that is never asked for more than it holds: what is asked for is allocated before it is read."""

    def __init__(self, path: Path) -> None:
        super().__init__(FileIO(path))
        self._size = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _LARGE_READ:
            size = max(0, min(size, self._size - self.tell()))
        return super().read(size)


def opened(source: Path | bytes) -> BinaryIO:
    """Open a file, or the bytes of one. A length in it that is a lie costs no memory."""
    return BytesIO(source) if isinstance(source, bytes) else cast("BinaryIO", _Reader(source))


def _single_fragment(value: bytes | memoryview) -> bytes | None:
    """Return the one codestream of encapsulated pixel data, or None if there are several fragments."""
    view = memoryview(value)
    if len(view) < 24 or view[:4] != _ITEM:
        return None
    start = 8 + int.from_bytes(view[4:8], "little")  # after the basic offset table
    if view[start : start + 4] != _ITEM:
        return None
    end = start + 8 + int.from_bytes(view[start + 4 : start + 8], "little")
    return bytes(view[start + 8 : end]) if view[end : end + 4] == _DELIMITER else None


def _ends_within_fragment(value: bytes | memoryview) -> bool:
    """Say whether a fragment of encapsulated pixel data is longer than what is there (PS3.5 A.4)."""
    place = 0
    while value[place : place + 4] == _ITEM:
        place += 8 + int.from_bytes(value[place + 4 : place + 8], "little")
    return place > len(value)


def _span(image: DicomImage, frame: int) -> tuple[int, int]:
    """Return the first byte of a frame within the value and the one after its last."""
    if image.bits_allocated == 1:  # frames of single bits follow each other without gaps (PS3.5 8.1.1)
        first = frame * image.rows * image.columns
        return first // 8, (first + image.rows * image.columns + 7) // 8
    return frame * image.frame_bytes, (frame + 1) * image.frame_bytes


def _shifted(image: DicomImage, frame: int, cells: bytes | memoryview) -> bytes | memoryview:
    """Return a frame of single bits from the first bit of its own on, and any other as it is."""
    count = image.rows * image.columns
    spare = frame * count % 8
    if image.bits_allocated != 1 or not spare:
        return cells
    bits = int.from_bytes(cells, "little") >> spare
    return (bits & ((1 << count) - 1)).to_bytes(image.frame_bytes, "little")
