"""What is judged: acquired frames, volumes, and which voxels of a volume lie at a frame's pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PLACE_MM = 0.1
VALUE = 0.5


@dataclass(frozen=True, eq=False)
class Frame:
    """One acquired frame.

    Attributes
    ----------
    values
        (rows, columns), in the modality's units.
    origin, column_step, row_step
        Where its first pixel is, and the vectors to the next column and the next row; LPS mm.
    measured
        Where its pixels are no padding; None: everywhere.
    step
        The difference between two stored values that follow each other.
    slack
        By how many stored values two decoders may differ: 0 unless the codestream is lossy.
    attributes
        What may tell it from another frame at its place.
    """

    values: NDArray[np.float32]
    origin: NDArray[np.float64]
    column_step: NDArray[np.float64]
    row_step: NDArray[np.float64]
    measured: NDArray[np.bool_] | None = None
    step: float = 1.0
    slack: int = 0
    attributes: dict[str, str] = field(default_factory=dict)

    @property
    def normal(self) -> NDArray[np.float64]:
        """The unit normal."""
        normal = np.cross(self.column_step, self.row_step)
        return normal / np.linalg.norm(normal)

    @property
    def tolerance(self) -> float:
        """How far a value may be off: half a stored step and half a unit, and what float32 rounds away."""
        largest = float(np.abs(self.values).max(initial=0))
        return min(VALUE, self.step / 2) + self.slack * self.step + 1e-5 * largest


@dataclass(frozen=True, eq=False)
class Candidate:
    """A volume to be judged: voxels (slices, rows, columns), affine from (column, row, slice) to LPS mm."""

    voxels: NDArray[Any]
    affine: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge says of a tool's volumes.

    `kind` is `right`, `resampled` (right as well), `wrong`, or `unjudged` where there is nothing to judge by. `frames`
    are how many acquired frames the volumes hold, `of` how many there are. `error` is the largest difference of a
    value at a place that should be exact, NaN where no place is.
    """

    kind: str
    frames: int = 0
    of: int = 0
    error: float = float("nan")
    why: str = ""


@dataclass(frozen=True, eq=False)
class Line:
    """Where a frame lies in a volume's indices, (column, row, slice): the first pixel and the two steps."""

    start: NDArray[np.float64]
    column: NDArray[np.float64]
    row: NDArray[np.float64]

    @classmethod
    def of(cls, candidate: Candidate, frame: Frame) -> Line:
        """Express a frame's origin and steps in a volume's indices."""
        inverse = np.linalg.inv(candidate.affine)
        linear = inverse[:3, :3]
        return cls(linear @ frame.origin + inverse[:3, 3], linear @ frame.column_step, linear @ frame.row_step)

    def at(self, columns: NDArray[Any], rows: NDArray[Any]) -> NDArray[np.float64]:
        """Indices (3, ...) of pixels."""
        shape = (3, *([1] * np.ndim(columns)))
        parts = [vector.reshape(shape) for vector in (self.start, self.column, self.row)]
        return np.asarray(parts[0] + parts[1] * columns + parts[2] * rows)


def exact(candidate: Candidate, frame: Frame, place_mm: float = PLACE_MM) -> NDArray[Any] | None:
    """Return the voxels at a frame's pixels, or None where there are none within `place_mm` of every pixel."""
    line = Line.of(candidate, frame)
    whole = Line(np.rint(line.start), np.rint(line.column), np.rint(line.row))
    if np.abs(whole.column).sum() != 1 or np.abs(whole.row).sum() != 1 or whole.column @ whole.row:
        return None
    rows, columns = frame.values.shape
    corners = (np.array([0, columns - 1, 0, columns - 1]), np.array([0, 0, rows - 1, rows - 1]))
    off = candidate.affine[:3, :3] @ (whole.at(*corners) - line.at(*corners))
    if np.linalg.norm(off, axis=0).max() > place_mm:
        return None
    indices = whole.at(*corners).astype(int)
    if indices.min() < 0 or (indices.max(axis=1) >= candidate.voxels.shape[::-1]).any():
        return None
    low, high = indices.min(axis=1), indices.max(axis=1) + 1
    cut = candidate.voxels.transpose(2, 1, 0)[tuple(slice(*ends) for ends in zip(low, high, strict=True))]
    cut = cut[tuple(slice(None, None, -1 if part < 0 else 1) for part in whole.column + whole.row)]
    cut = cut.squeeze(({0, 1, 2} - {*np.flatnonzero(whole.column), *np.flatnonzero(whole.row)}).pop())
    return cut.T if whole.column.nonzero()[0][0] < whole.row.nonzero()[0][0] else cut
