"""From stored values to the modality's units (HU in CT): slope and intercept, look-up tables, padding."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

Values: TypeAlias = "NDArray[np.int16] | NDArray[np.float32]"

AIR_HU = -1024
"""What padding becomes in a CT volume where its own value lies outside the scale of tissue."""
CT_SCALE = (-1024, 3071)
"""The scale of tissue, in HU."""
_MOST = 1e18
"""The largest slope or intercept: with it every stored value is still within float32."""


@dataclass(frozen=True, slots=True)
class LookUpTable:
    """A table of PS3.3 C.11.1 or C.11.2: input `first` maps to the first entry, and beyond the ends the ends hold.

    `entries` are native unsigned 16-bit numbers as bytes, so that a table can be compared and be a key.
    """

    first: int
    bits: int
    entries: bytes

    @classmethod
    def of(cls, item: Dataset) -> LookUpTable:
        """Read an item of a Modality or VOI LUT Sequence.

        Raises
        ------
        AttributeError, ValueError
            If it is no table, or has not as many entries as its descriptor says.
        """
        count, first, bits = (int(value) for value in item.LUTDescriptor)
        data = item.LUTData
        if isinstance(data, bytes) and item.original_encoding[1] is False and len(data) >= 2 * count:
            data = np.frombuffer(data, ">u2").astype("<u2").tobytes()  # OW: the reader leaves the order as it is
        return cls.from_data((count, first, bits), data)

    @classmethod
    def from_data(cls, descriptor: tuple[int, int, int], data: Any) -> LookUpTable:
        """Read a table from its descriptor (entries, first input, bits) and its data, bytes or numbers.

        Raises
        ------
        ValueError
            If there are fewer entries than the descriptor says.
        """
        count, first, bits = descriptor
        count = count % 65536 or 65536  # 0 stands for 2**16 (C.11.1.1)
        if isinstance(data, bytes):
            entries = np.frombuffer(data, np.uint8 if len(data) <= count + 1 else "<u2")
        else:
            entries = np.atleast_1d(np.asarray(data)).astype(np.int64) & 0xFFFF
            if bits <= 8 and len(entries) < count <= 2 * len(entries):  # two entries in each word (C.7.6.3.1.6)
                entries = entries.astype("<u2").view(np.uint8)
        if len(entries) < count:
            raise ValueError(f"a look-up table has {len(entries)} entries instead of {count}")
        return cls(first, bits, entries[:count].astype(np.uint16).tobytes())

    def apply(self, values: NDArray[Any]) -> NDArray[np.uint16]:
        """Look up each value."""
        table = np.frombuffer(self.entries, np.uint16)
        index = np.asarray(values, np.int64) - self.first
        return table[np.clip(index, 0, len(table) - 1)]


@dataclass(frozen=True, slots=True)
class ModalityTransform:
    """The modality transform of a frame (PS3.3 C.11.1, C.7.6.16.2.9): a table, or `stored * slope + intercept`."""

    slope: float = 1.0
    intercept: float = 0.0
    table: LookUpTable | None = None
    note: Literal["", "absent", "slope 0"] = field(default="", compare=False)
    """What the header lacks: both elements, or a slope that is not 0, for which 1 is taken."""

    def __post_init__(self) -> None:
        if not (abs(self.slope) <= _MOST and abs(self.intercept) <= _MOST):
            raise ValueError(f"Rescale Slope {self.slope:g} or Rescale Intercept {self.intercept:g} is no sane number")

    @classmethod
    def of(cls, *sources: Dataset | None) -> ModalityTransform:
        """Read the transform from the first of `sources` that holds one (a functional group, then the data set)."""
        for source in sources:
            if source is None:
                continue
            if source.get("ModalityLUTSequence"):
                return cls(table=LookUpTable.of(source.ModalityLUTSequence[0]))
            slope, intercept = source.get("RescaleSlope"), source.get("RescaleIntercept")
            if slope is not None or intercept is not None:
                scale = 1.0 if slope is None else decimal(slope)
                return cls._declared(scale, 0.0 if intercept is None else decimal(intercept))
        return cls(note="absent")

    @classmethod
    def _declared(cls, slope: float, intercept: float) -> ModalityTransform:
        # A slope of nought would make every voxel equal. Writers that leave it at 0 mean "no rescale".
        return cls(slope, intercept) if slope else cls(1.0, intercept, note="slope 0")

    @classmethod
    def plain(cls, slope: bytes | None, intercept: bytes | None) -> ModalityTransform:
        """Make it from the bytes of Rescale Slope and Rescale Intercept.

        Raises
        ------
        ValueError
            If they are no numbers.
        """
        scale, offset = (slope or b"").strip(b"\0 "), (intercept or b"").strip(b"\0 ")
        return _plain(scale, offset) if scale or offset else _ABSENT

    @property
    def integral(self) -> bool:
        """Whether whole stored values become whole numbers."""
        return self.table is not None or (float(self.slope).is_integer() and float(self.intercept).is_integer())

    def apply(self, stored: NDArray[Any]) -> Values:
        """Return the values in the modality's units: int16 where they are whole and fit, else float32."""
        if self.table is not None:
            return narrow(self.table.apply(stored).astype(np.int32))
        if self.integral and np.issubdtype(stored.dtype, np.integer):
            slope, intercept = int(self.slope), int(self.intercept)
            ends = [int(end) * slope + intercept for end in (stored.min(initial=0), stored.max(initial=0))]
            if min(ends) >= -32768 and max(ends) <= 32767:
                # Modulo 2**16 the arithmetic is exact whenever the results fit.
                values = stored.astype(np.int16)
                if slope != 1:
                    values *= low_bits(slope)
                if intercept:
                    values += low_bits(intercept)
                return values
        return (stored * np.float64(self.slope) + self.intercept).astype(np.float32)

    def values(self, stored: NDArray[Any], padding: Padding | None) -> Values:
        """Do what `apply` does, and turn padding into air (`Padding.air`) if there is any."""
        values = self.apply(stored)
        return values if padding is None else padding.air(stored, values)


@lru_cache(maxsize=256)
def _plain(slope: bytes, intercept: bytes) -> ModalityTransform:
    return ModalityTransform._declared(  # noqa: SLF001 - of this very class
        decimal(slope) if slope else 1.0, decimal(intercept) if intercept else 0.0
    )


_ABSENT = ModalityTransform(note="absent")


def decimal(value: Any) -> float:
    """Read a decimal string (PS3.5 6.2), of bytes, of text or as pydicom has read it.

    Raises
    ------
    TypeError, ValueError
        If it is none. `float` would also take digits that underscores group: 1_5 for 15.
    """
    written = getattr(value, "original_string", value)
    if (isinstance(written, bytes) and b"_" in written) or (isinstance(written, str) and "_" in written):
        raise ValueError(f"{written!r} is no decimal string")
    return float(value)


def narrow(values: NDArray[Any]) -> Values:
    """Return whole numbers as int16 where all fit, anything else as float32."""
    if values.dtype == np.int16:
        return values
    low, high = values.min(initial=0), values.max(initial=0)
    if low >= -32768 and high <= 32767 and (np.issubdtype(values.dtype, np.integer) or _whole(values)):
        return values.astype(np.int16)
    return values.astype(np.float32)


def low_bits(number: int) -> np.int16:
    """Return a number modulo 2**16."""
    return np.int16((number + 0x8000) % 0x10000 - 0x8000)


def _whole(values: NDArray[Any]) -> bool:
    sample = values.reshape(-1)[::997]
    return bool(np.array_equal(sample, np.rint(sample))) and bool(np.array_equal(values, np.rint(values)))


@dataclass(frozen=True, slots=True)
class Padding:
    """Stored values that fill what was never measured, `low` to `high` inclusive (PS3.3 C.7.5.1.1.2)."""

    low: int
    high: int

    @classmethod
    def of(cls, header: Dataset, *, signed: bool, bits_allocated: int) -> Padding | None:
        """Read Pixel Padding Value and Range Limit, in the sign that the pixels have."""
        value = header.get("PixelPaddingValue")
        if not isinstance(value, int | bytes):
            return None
        limit = header.get("PixelPaddingRangeLimit")
        limit = limit if isinstance(limit, int | bytes) else None
        return cls.between(value, limit, signed=signed, bits_allocated=bits_allocated)

    @classmethod
    def between(cls, value: int | bytes, limit: int | bytes | None, *, signed: bool, bits_allocated: int) -> Padding:
        """Make it from the two elements' values, the second of which may be absent."""
        ends = [_as_stored(end, signed=signed, bits=bits_allocated) for end in (value, limit) if end is not None]
        return cls(min(ends), max(ends))

    def mask(self, stored: NDArray[Any]) -> NDArray[np.bool_]:
        """Return where the padding is."""
        if self.low == self.high:
            return np.asarray(stored == self.low)
        return np.asarray((stored >= self.low) & (stored <= self.high))

    def air(self, stored: NDArray[Any], values: Values) -> Values:
        """Replace CT padding whose value is off the scale of tissue by air (in place).

        Padding is often -2000 HU or +64,000 HU, which would upset every threshold. Padding whose value could be
        tissue is left: there are scanners that declare 0 HU as padding in images full of water.
        """
        padded = self.mask(stored)
        if not padded.any():
            return values
        outside = (values < CT_SCALE[0]) | (values > CT_SCALE[1])
        values[padded & outside] = AIR_HU
        return values


def _as_stored(value: int | bytes, *, signed: bool, bits: int) -> int:
    # The VR is US or SS as the writer pleased, so the number is taken as bits and read in the pixels' own sign.
    number = int.from_bytes(value[:2], "little") if isinstance(value, bytes) else value
    number &= (1 << bits) - 1
    return number - (1 << bits) if signed and number >> (bits - 1) else number
