"""Frames into the voxels of a volume, each decoded once and written once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from voxelmill_shared.imaging.decoding import Stored, decode_cells, stored_values
from voxelmill_shared.imaging.reasons import Unsupported
from voxelmill_shared.imaging.transform import AIR_HU, CT_SCALE, low_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from voxelmill_shared.imaging.image import DicomImage
    from voxelmill_shared.imaging.transform import ModalityTransform, Padding, Values


@dataclass(frozen=True, eq=False)
class Filling:
    """The voxels of a volume while its frames are put into them, by several threads at once.

    Where all transforms are whole numbers the voxels are int16, and frames of 16-bit cells are written straight into
    them; frames that turn out not to fit wait aside, and make all of it float32 at the end.
    """

    transforms: tuple[ModalityTransform, ...]
    paddings: tuple[Padding | None, ...]
    array: Values
    wide: dict[int, Values] = field(default_factory=dict)

    @classmethod
    def of(
        cls, transforms: tuple[ModalityTransform, ...], paddings: tuple[Padding | None, ...], rows: int, columns: int
    ) -> Filling:
        """Allocate the voxels of as many slices as there are transforms; `paddings` are those to become air."""
        shape = len(transforms), rows, columns
        whole = all(transform.integral for transform in set(transforms))
        array: Values = np.empty(shape, np.int16) if whole else np.empty(shape, np.float32)
        return cls(transforms, paddings, array)

    def put(self, k: int, image: DicomImage, frame: int, encoded: bytes | memoryview) -> None:
        """Decode a frame into the slice `k`.

        Raises
        ------
        UnsupportedSeriesError
            If it cannot be decoded.
        """
        cells, _ = decode_cells(image, frame, encoded)
        if self.array.dtype == np.int16 and self._written(k, image, cells):
            return
        values = self.transforms[k].values(stored_values(image, cells), self.paddings[k])
        if cells.dtype.kind == "f" and not np.isfinite(values).all():
            raise Unsupported.UNSUPPORTED_VALUES.error(f"{image.name}: some of its pixels are no finite numbers")
        if self.array.dtype == np.int16 and values.dtype != np.int16:
            self.wide[k] = values
        else:
            self.array[k] = values

    def voxels(self) -> Values:
        """Return the voxels, once every frame has been put into them."""
        if not self.wide:
            return self.array
        voxels = self.array.astype(np.float32)
        for k, values in self.wide.items():
            voxels[k] = values
        return voxels

    def _written(self, k: int, image: DicomImage, cells: Stored) -> bool:
        """Write 16-bit cells that are stored values as they stand and stay whole; False if they are not such."""
        transform = self.transforms[k]
        bits = image.bits_stored
        if cells.dtype.itemsize != 2 or image.bits_allocated != 16 or image.high_bit + 1 != bits:
            return False
        if transform.table is not None or not cells.dtype.isnative or cells.dtype.kind not in "iu":
            return False
        stored: NDArray[Any] = cells.view(np.int16 if image.signed else np.uint16)
        low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if image.signed else (0, (1 << bits) - 1)
        slope, intercept = int(transform.slope), int(transform.intercept)
        if bits < 16 or not _fits(low, high, slope, intercept):
            least, most = int(stored.min()) if image.signed else 0, int(stored.max())
            if least < low or most > high or not _fits(min(least, 0), most, slope, intercept):
                return False
        out = self.array[k]
        # Modulo 2**16 the arithmetic is exact whenever the results fit.
        if slope == 1:
            np.add(stored.view(np.int16), low_bits(intercept), out=out)
        else:
            np.multiply(stored.view(np.int16), low_bits(slope), out=out)
            out += low_bits(intercept)
        self._clear_padding(k, stored, out)
        return True

    def _clear_padding(self, k: int, stored: NDArray[Any], out: NDArray[np.int16]) -> None:
        padding = self.paddings[k]
        if padding is None:
            return
        if padding.low != padding.high:
            padding.air(stored, out)
            return
        transform = self.transforms[k]
        value = padding.low * int(transform.slope) + int(transform.intercept)
        if not CT_SCALE[0] <= value <= CT_SCALE[1]:
            np.copyto(out, np.int16(AIR_HU), where=stored == padding.low)


def _fits(low: int, high: int, slope: int, intercept: int) -> bool:
    ends = low * slope + intercept, high * slope + intercept
    return min(ends) >= -32768 and max(ends) <= 32767
