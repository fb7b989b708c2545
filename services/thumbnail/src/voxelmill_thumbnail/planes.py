"""Planes through a volume in right physical proportions, as radiologists look at them.

The patient's right is on the left of axial and coronal pictures, the front is at the top of axial and on the left of
sagittal pictures, and the head is up. Letters at the edges say so; where a plane is oblique, a second letter tells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from voxelmill_shared.imaging.windowing import levels_of, percentile_window
from voxelmill_thumbnail.marks import Edges, edges_of, mark
from voxelmill_thumbnail.presets import is_in_hu

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from voxelmill_shared.imaging.frames import Window
    from voxelmill_shared.imaging.transform import LookUpTable
    from voxelmill_shared.imaging.volume import Volume

_LONGEST_SIDE = 1024
"""Planes are shown beside each other; more pixels than this nobody sees."""
_SHEAR = 1e-3
_FAT_HU = -100.0


@dataclass(frozen=True, eq=False)
class Plane:
    """One picture of a volume, and what lies beyond its edges. `marked()` has the letters drawn into it."""

    image: Image.Image
    edges: Edges

    def marked(self) -> Image.Image:
        """Return the picture with its letters."""
        return mark(self.image, self.edges)


@dataclass(frozen=True, eq=False)
class Planes:
    """The pictures of a volume.

    `preview` is the middle slice as it was acquired, at full resolution; `presets` are axial planes in the windows
    asked for, by their names.
    """

    axial: Plane
    coronal: Plane
    sagittal: Plane
    mip: Plane
    preview: Plane
    presets: dict[str, Plane]


def draw_planes(
    volume: Volume,
    window: Window | LookUpTable | None,
    *,
    inverted: bool = False,
    padding: tuple[float, float] | None = None,
    presets: Mapping[str, Window] = MappingProxyType({}),
) -> Planes:
    """Draw the middle planes and a coronal maximum intensity projection.

    Parameters
    ----------
    volume
        In any orientation; obliqueness is left as it is and told by the letters, gantry tilt is undone in the picture.
    window
        The window or VOI table for the planes. Without one the percentiles of the volume give it. The projection
        always has its own window, from its own percentiles: it shows other tissue.
    inverted
        Whether low values are bright (MONOCHROME1).
    padding
        The range of values that were never measured, which no percentile counts.
    presets
        More windows to draw the axial plane in. They are never inverted.
    """
    acquired = volume.orientation[2]
    volume = volume.to_lps()
    voxels = volume.voxels
    left, back, head = (volume.affine[:3, axis] for axis in range(3))
    window = window or percentile_window(_measured(voxels[:: max(1, len(voxels) // 32)], padding))
    slices, rows, columns = (n // 2 for n in voxels.shape)

    def draw(plane: _Section, own: Window | LookUpTable, longest: int = _LONGEST_SIDE, *, invert: bool) -> Plane:
        return _draw(levels_of(plane.values, own, inverted=invert), plane, longest)

    axial = _Section(voxels[slices], left, back)
    coronal = _Section(voxels[::-1, rows, :], left, -head)
    sagittal = _Section(voxels[::-1, :, columns], back, -head)
    full = {"S": axial, "I": axial, "A": coronal, "P": coronal, "L": sagittal, "R": sagittal}[acquired]
    # Seen along the rows' axis, so only the part of a step at right angles to it counts.
    unit = back / np.linalg.norm(back)
    seen = (step - unit * (step @ unit) for step in (left, -head))
    projection = _Section(voxels[::-1].max(axis=1), *seen)
    bright = _projection_window(_measured(projection.values, padding), in_hu=is_in_hu(volume))
    return Planes(
        axial=draw(axial, window, invert=inverted),
        coronal=draw(coronal, window, invert=inverted),
        sagittal=draw(sagittal, window, invert=inverted),
        mip=draw(projection, bright, invert=inverted),
        preview=draw(full, window, 1 << 20, invert=inverted),
        presets={name: draw(axial, preset, invert=False) for name, preset in presets.items()},
    )


def _measured(values: NDArray[Any], padding: tuple[float, float] | None) -> NDArray[Any]:
    if padding is None:
        return values
    measured = values[(values < padding[0]) | (values > padding[1])]
    return measured if measured.size else values


def _projection_window(values: NDArray[Any], *, in_hu: bool) -> Window:
    window = percentile_window(values)
    low, high = window.centre - window.width / 2, window.centre + window.width / 2
    if not in_hu or high <= _FAT_HU + 1:
        return window
    low = max(low, _FAT_HU)  # the greys are for what is denser than fat: bone and contrast lie over all else
    return replace(window, centre=(low + high) / 2, width=high - low)


@dataclass(frozen=True, eq=False)
class _Section:
    """An index plane of the volume, and the millimetre vectors of one column and one row of it."""

    values: NDArray[Any]
    across: NDArray[np.float64]
    down: NDArray[np.float64]


def _draw(levels: NDArray[np.uint8], section: _Section, longest: int) -> Plane:
    """Draw the grey levels of a section with square pixels of the finer of its two spacings.

    Where the section's directions are not at right angles (a tilted gantry), the one that runs along the body stays
    vertical and the rows are shifted.
    """
    across, down = section.across, section.down
    upright = down / np.linalg.norm(down)
    edges = edges_of(across - upright * (across @ upright), down)
    return Plane(_square(levels, across, down, longest), edges)


def _square(
    levels: NDArray[np.uint8], across: NDArray[np.float64], down: NDArray[np.float64], longest: int
) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(levels))
    width, height = float(np.linalg.norm(across)), float(np.linalg.norm(down))
    cosine = float(across @ down) / (width * height)
    if abs(cosine) < _SHEAR:
        pixel = max(min(width, height), max(levels.shape[1] * width, levels.shape[0] * height) / longest)
        size = max(1, round(levels.shape[1] * width / pixel)), max(1, round(levels.shape[0] * height / pixel))
        return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)
    # In the picture's frame, x at right angles to `down`: column index steps by (run, lean), row index by (0, height).
    run, lean = width * float(np.sqrt(1 - cosine**2)), width * cosine
    extent_x = levels.shape[1] * run
    extent_y = levels.shape[0] * height + abs(levels.shape[1] * lean)
    pixel = max(min(run, height), max(extent_x, extent_y) / longest)
    top = min(0.0, levels.shape[1] * lean)
    # Pillow asks for the source of each target pixel: column = x / run, row = (y - lean * column) / height.
    matrix = (pixel / run, 0, 0, -lean * pixel / (run * height), pixel / height, top / height)
    size = max(1, round(extent_x / pixel)), max(1, round(extent_y / pixel))
    return image.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
