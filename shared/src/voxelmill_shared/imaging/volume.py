"""A volume: voxels in the modality's units with an affine in LPS millimetres."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from voxelmill_shared.imaging.transform import Values

_ENDS = (("R", "L"), ("A", "P"), ("I", "S"))


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels and where they lie.

    Attributes
    ----------
    voxels
        (slices, rows, columns), int16 or float32: HU in CT, else the modality's units after the modality transform
        (PS3.3 C.11.1).
    affine
        4 x 4, maps (column, row, slice) indices to millimetres in the patient's LPS system (PS3.3 C.7.6.2.1.1). Its
        third column is the step from slice to slice: with a gantry tilt it is not at right angles to the others.
    modality
        As in DICOM, `CT`. Empty for NIfTI, which has none: see `looks_like_ct`.
    frame_of_reference_uid
        Empty where there is none, or where an anonymiser has given each instance its own.
    instance_order
        For each slice, the number (from 0) of the input file that it comes from; -1 for a slice that was interpolated
        from those beside it, which is in no file.
    frame_order
        For each slice, the number (from 0) of the frame within that file, or -1.
    warnings
        Lines for people: what is odd but not wrong.
    distinction
        What tells this volume from the others of its series, `EchoTime 4.92`. Empty where it is the only one.
    """

    voxels: Values
    affine: NDArray[np.float64]
    modality: str = ""
    frame_of_reference_uid: str = ""
    instance_order: tuple[int, ...] = ()
    frame_order: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()
    distinction: str = ""

    @property
    def spacing(self) -> tuple[float, float, float]:
        """The millimetres of one step along columns, rows and slices, in the order of the affine's columns."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def orientation(self) -> str:
        """Where the column, row and slice index grow towards, as the nearest of R L, A P, I S: `LPS`."""
        return axis_codes(self.affine)

    def to_lps(self) -> Volume:
        """Return the same voxels with axes reordered and flipped so that the orientation is LPS.

        Then columns grow to the patient's left, rows to the back and slices to the head, as nearly as the acquired
        directions allow; nothing is resampled. `instance_order` and `frame_order` follow the slices where the slice
        axis stays the slice axis, and are empty where it does not.
        """
        axes = _nearest_axes(self.affine)
        # axes[i] is the patient axis of index axis i; `source` is its inverse.
        source = [axes.index(patient) for patient in range(3)]
        affine = self.affine.copy()
        affine[:3, :3] = self.affine[:3, source]
        voxels = self.voxels.transpose([2 - source[axis] for axis in (2, 1, 0)])
        flips = [bool(affine[patient, patient] < 0) for patient in range(3)]
        for axis, flipped in enumerate(flips):
            if flipped:
                voxels = np.flip(voxels, 2 - axis)
                affine[:3, 3] += affine[:3, axis] * (voxels.shape[2 - axis] - 1)
                affine[:3, axis] *= -1
        step = -1 if flips[2] else 1
        stays = source[2] == 2
        return replace(
            self,
            voxels=voxels,
            affine=affine,
            instance_order=self.instance_order[::step] if stays else (),
            frame_order=self.frame_order[::step] if stays else (),
        )


def _nearest_axes(affine: NDArray[np.float64]) -> list[int]:
    """Return for each index axis the patient axis that it runs along, each patient axis once."""
    cosines = np.abs(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))
    axes = [-1, -1, -1]
    for _ in range(3):
        patient, index = np.unravel_index(int(np.argmax(cosines)), (3, 3))
        axes[int(index)] = int(patient)
        cosines[patient, :] = -1
        cosines[:, index] = -1
    return axes


def axis_codes(affine: NDArray[np.float64]) -> str:
    """Return where the index axes of an LPS affine grow towards, one letter each."""
    axes = _nearest_axes(affine)
    return "".join(_ENDS[axis][int(affine[axis, index] > 0)] for index, axis in enumerate(axes))


def looks_like_ct(volume: Volume) -> bool:
    """Say whether the values look like Hounsfield units, for files that do not name their modality.

    HU are a scale with fixed points: air is -1000, water 0. So a CT has a good part of its voxels near air (at least
    2 % between -1100 and -900, or padding below), another near water (at least 2 % between -200 and 200, where fat
    and soft tissue lie), something denser than 150, and nothing far below air but padding. MR and PET have no
    negative tissue; a normalised image has no values of this size. Whole-number images only are not required:
    resampled CT is often float.
    """
    sample = volume.voxels[::2, ::3, ::3].reshape(-1)
    if sample.size == 0 or sample.min() > -900 or sample.max() < 150 or sample.min() < -10_000:
        return False
    air = np.count_nonzero(sample < -900) / sample.size
    water = np.count_nonzero((sample > -200) & (sample < 200)) / sample.size
    return bool(air >= 0.02 and water >= 0.02)
