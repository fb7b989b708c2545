"""A view of a volume along the patient's axes, so that left is left however the series was stored."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class PatientAxes:
    """How a volume's axes lie in the patient: nothing is resampled, axes are only permuted and flipped.

    In the patient's view axis 0 grows towards the head, axis 1 to the back, axis 2 to the patient's left (LPS).

    Parameters
    ----------
    order
        For each axis of the patient's view, the axis of the volume.
    flipped
        For each axis of the patient's view, whether it runs against the volume's.
    spacing
        Millimetres along the axes of the patient's view.
    """

    order: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    spacing: tuple[float, float, float]

    @classmethod
    def of(cls, affine: npt.NDArray[np.float64]) -> Self:
        """Find the axes that lie nearest to the patient's.

        An oblique or sheared (gantry tilt) volume keeps its obliquity: up to 45° it changes no side.

        Parameters
        ----------
        affine
            4x4, (column, row, slice) index to LPS millimetres.
        """
        steps = np.asarray(affine, float)[:3, :3][:, ::-1]  # columns: steps along slice, row, column
        lengths = np.linalg.norm(steps, axis=0)
        cosines = (steps / lengths)[::-1]  # rows: S, P, L
        order = max(permutations(range(3)), key=lambda p: sum(abs(cosines[i, p[i]]) for i in range(3)))
        return cls(
            order=(order[0], order[1], order[2]),
            flipped=(
                bool(cosines[0, order[0]] < 0),
                bool(cosines[1, order[1]] < 0),
                bool(cosines[2, order[2]] < 0),
            ),
            spacing=(float(lengths[order[0]]), float(lengths[order[1]]), float(lengths[order[2]])),
        )

    def to_patient(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a view (superior, posterior, left) of an array (slices, rows, columns)."""
        return array.transpose(self.order)[self._flips()]

    def to_volume(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a view (slices, rows, columns) of an array in the patient's view."""
        return array[self._flips()].transpose(np.argsort(self.order))

    def _flips(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)
