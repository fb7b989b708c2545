"""A phantom: a chest CT computed from formulas, with the truth about every voxel.

It is what `voxelmill demo` works on: anatomy that a segmentation must tell apart (lungs with vessels, airways, ribs
with marrow, a stomach with gas, a table under the back), noise like a scanner's, and no patient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from voxelmill_cli.phantom_anatomy import Build, draw_slice
from voxelmill_cli.phantom_shapes import Canvas
from voxelmill_segment.labels import BODY, SEGMENTS

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

_MIDDLE_Y_MM, _MIDDLE_Z_MM = 14.0, 62.0


@dataclass(frozen=True, slots=True)
class PhantomPlan:
    """What a phantom shall be.

    Parameters
    ----------
    seed
        The same seed gives the same phantom, to the bit.
    rows, columns, slices
        Its size in voxels.
    pixel_mm, slice_mm
        The distance of pixels and of slices.
    noise_hu
        The standard deviation of the noise in the middle of the body.
    contrast_hu
        How much a contrast medium adds to the blood.
    """

    seed: int = 0
    rows: int = 512
    columns: int = 512
    slices: int = 120
    pixel_mm: float = 0.75
    slice_mm: float = 2.5
    noise_hu: float = 16.0
    contrast_hu: float = 0.0


@dataclass(frozen=True, slots=True)
class Phantom:
    """A computed CT and its truth.

    Parameters
    ----------
    plan
        What it was made from.
    voxels
        int16 HU, (slices, rows, columns); slices from the feet to the head.
    labels
        uint8 of the same shape: the segment numbers of `voxelmill_segment.labels`. `body` has none of its own.
    affine
        4x4, (column, row, slice) index to LPS millimetres.
    """

    plan: PhantomPlan
    voxels: npt.NDArray[np.int16]
    labels: npt.NDArray[np.uint8]
    affine: npt.NDArray[np.float64]

    @property
    def volumes_ml(self) -> dict[str, float]:
        """The true volume of each segment in millilitres, by its name; `body` is all within the skin."""
        voxel_ml = float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0
        counts = np.bincount(self.labels.ravel(), minlength=len(SEGMENTS) + 1)
        volumes = {segment.name: float(counts[segment.number]) * voxel_ml for segment in SEGMENTS}
        return volumes | {BODY.name: float(counts[1:].sum()) * voxel_ml}


def make_phantom(plan: PhantomPlan, report: Callable[[int, int], None] | None = None) -> Phantom:
    """Compute a phantom.

    Parameters
    ----------
    plan
        What it shall be.
    report
        Is told (slices done, slices in all) after each slice.
    """
    random = np.random.default_rng([plan.seed, 1])
    build = Build.draw(random, plan.contrast_hu)
    voxels = np.empty((plan.slices, plan.rows, plan.columns), np.int16)
    labels = np.empty(voxels.shape, np.uint8)
    affine = np.diag([plan.pixel_mm, plan.pixel_mm, plan.slice_mm, 1.0])
    sizes = np.array([plan.columns, plan.rows, plan.slices])
    middle = np.array([0.0, _MIDDLE_Y_MM, _MIDDLE_Z_MM])
    affine[:3, 3] = middle - (sizes - 1) / 2.0 * np.diag(affine)[:3]
    x = (affine[0, 3] + plan.pixel_mm * np.arange(plan.columns)).astype(np.float32)
    y = (affine[1, 3] + plan.pixel_mm * np.arange(plan.rows)).astype(np.float32)
    # Noise grows with the tissue that a ray has crossed: strongest on the body's axis.
    strength = plan.noise_hu * (0.55 + 0.45 * np.exp(-((x / 130.0) ** 2)[None, :] - ((y / 95.0) ** 2)[:, None]))
    for index in range(plan.slices):
        canvas = Canvas(x, y, float(affine[2, 3] + plan.slice_mm * index))
        draw_slice(canvas, build)
        canvas.hu[:] += strength * _noise(np.random.default_rng([plan.seed, 2, index]), canvas.hu.shape)
        voxels[index] = np.rint(np.clip(canvas.hu, -1024, 3071))
        labels[index] = canvas.labels
        if report is not None:
            report(index + 1, plan.slices)
    return Phantom(plan, voxels, labels, affine)


def _noise(random: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return noise of unit strength with a grain: filtered back projection makes neighbours alike, but no clouds."""
    white = random.standard_normal(shape, np.float32)
    fine = ndimage.gaussian_filter(white, 0.7, mode="wrap", truncate=3.0)
    grain = fine - 0.5 * ndimage.uniform_filter(fine, 7, mode="wrap")
    noise: npt.NDArray[np.float32] = grain / grain.std()
    return noise
