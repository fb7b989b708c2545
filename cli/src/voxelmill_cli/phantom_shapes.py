"""Solid shapes drawn into one axial slice, with edges as soft as a scanner's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

Plane: TypeAlias = npt.NDArray[np.float32]
Box: TypeAlias = tuple[slice, slice]
Point: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Canvas:
    """One axial slice at the height `z`, in millimetres of the patient's LPS axes.

    Parameters
    ----------
    x, y
        Positions of the columns and of the rows.
    z
        The height of the slice.
    """

    x: Plane
    y: Plane
    z: float
    hu: Plane = field(init=False)
    labels: npt.NDArray[np.uint8] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hu", np.full((self.y.size, self.x.size), -1000, np.float32))
        object.__setattr__(self, "labels", np.zeros((self.y.size, self.x.size), np.uint8))

    @property
    def pixel_mm(self) -> float:
        """The distance of two columns."""
        return float(self.x[1] - self.x[0])

    def box(self, x: float, y: float, half_x: float, half_y: float) -> Box:
        """Return the part of the slice around a point, with two pixels to spare."""
        step = self.pixel_mm
        left = int((x - half_x - self.x[0]) / step) - 2
        right = int((x + half_x - self.x[0]) / step) + 4
        top = int((y - half_y - self.y[0]) / step) - 2
        bottom = int((y + half_y - self.y[0]) / step) + 4
        return slice(max(0, top), max(0, bottom)), slice(max(0, left), max(0, right))

    def whole(self) -> Box:
        """Return the whole slice."""
        return slice(0, self.y.size), slice(0, self.x.size)

    def paint(self, box: Box, distance: Plane, hu: float | Plane, label: int, only: Sequence[int] = ()) -> None:
        """Fill where a signed distance is negative; the edge is one pixel wide, as partial volume makes it.

        Parameters
        ----------
        box
            The part of the slice that `distance` is about.
        distance
            Millimetres to the surface, negative inside.
        hu
            The shape's Hounsfield units.
        label
            Its label; the voxels whose centre is inside have it.
        only
            The labels that may be painted over; all if empty.
        """
        target, labels = self.hu[box], self.labels[box]
        share = np.clip(0.5 - distance / self.pixel_mm, 0, 1)
        inside = distance < 0
        if only:
            allowed = np.isin(labels, only)
            share = share * allowed
            inside &= allowed
        target += share * (hu - target)
        labels[inside] = label

    def superellipse(self, box: Box, centre: tuple[float, float], half: tuple[float, float], power: float) -> Plane:
        """Return the distance to |x/a|^n + |y/b|^n = 1, to first order (exact at the surface)."""
        dx, dy = np.abs(self.x[box[1]] - centre[0]) / half[0], np.abs(self.y[box[0]] - centre[1]) / half[1]
        value = (dx**power)[None, :] + (dy**power)[:, None]
        slope_x, slope_y = power / half[0] * dx ** (power - 1), power / half[1] * dy ** (power - 1)
        slope = np.sqrt((slope_x**2)[None, :] + (slope_y**2)[:, None])
        distance: Plane = (value - 1) / np.maximum(slope, 0.3 * power / max(half))
        return distance.astype(np.float32, copy=False)

    def disc(self, x: float, y: float, half_x: float, half_y: float) -> tuple[Box, Plane]:
        """Return the box of an ellipse and the distance to it."""
        box = self.box(x, y, half_x, half_y)
        return box, self.superellipse(box, (x, y), (half_x, half_y), 2.0)

    def ellipsoid(self, centre: Point, half: Point) -> tuple[Box, Plane] | None:
        """Return the section of an ellipsoid, or nothing where the slice misses it."""
        cosine = 1 - ((self.z - centre[2]) / half[2]) ** 2
        if cosine <= 0.002:
            return None
        scale = float(np.sqrt(cosine))
        return self.disc(centre[0], centre[1], half[0] * scale, half[1] * scale)

    def tubes(
        self, tubes: Tubes, hu: float, label: int, only: Sequence[int] = (), *, shrink: float = 0, grow: float = 0
    ) -> None:
        """Paint all tubes that this slice cuts, thinner by `shrink` or thicker by `grow` millimetres."""
        for index in tubes.cut_by(self.z, grow):
            start, step = tubes.start[index], tubes.step[index]
            low, high = np.minimum(start, start + step), np.maximum(start, start + step)
            reach = float(tubes.radius[index].max()) + grow
            box = self.box(
                float(low[0] + high[0]) / 2,
                float(low[1] + high[1]) / 2,
                float(high[0] - low[0]) / 2 + reach,
                float(high[1] - low[1]) / 2 + reach,
            )
            dx, dy = self.x[box[1]] - start[0], self.y[box[0]] - start[1]
            dz = (self.z - start[2]) * tubes.flatten
            along_z = step[2] * tubes.flatten
            length = float(step[0] ** 2 + step[1] ** 2 + along_z**2)
            at = np.clip((dx * step[0])[None, :] + (dy * step[1] + dz * along_z)[:, None], 0, length) / length
            distance = np.sqrt(
                (dx[None, :] - at * step[0]) ** 2 + (dy[:, None] - at * step[1]) ** 2 + (dz - at * along_z) ** 2
            )
            first, last = tubes.radius[index]
            distance -= (first + at * (last - first)) - shrink + grow
            if distance.size:
                self.paint(box, distance, hu, label, only)


@dataclass(frozen=True, slots=True)
class Tubes:
    """Round-ended tubes: vessels, bronchi, ribs.

    Parameters
    ----------
    start, step
        float32 (tubes, 3): one end, and the way to the other, LPS mm.
    radius
        float32 (tubes, 2): the radius at both ends.
    flatten
        How much shorter heights count: below 1 the tubes are higher than wide.
    """

    start: Plane
    step: Plane
    radius: Plane
    flatten: float = 1.0

    @classmethod
    def through(cls, points: Sequence[Point], radii: Sequence[float], flatten: float = 1.0) -> Tubes:
        """Return a chain of tubes through points."""
        at, wide = np.array(points, np.float32), np.array(radii, np.float32)
        return cls(at[:-1], np.diff(at, axis=0), np.stack([wide[:-1], wide[1:]], 1), flatten)

    @classmethod
    def joined(cls, parts: Sequence[Tubes]) -> Tubes:
        """Return the tubes of several chains."""
        return cls(
            np.concatenate([part.start for part in parts]),
            np.concatenate([part.step for part in parts]),
            np.concatenate([part.radius for part in parts]),
            parts[0].flatten,
        )

    def cut_by(self, z: float, grow: float) -> npt.NDArray[np.intp]:
        """Return the numbers of the tubes that a height cuts."""
        ends = np.stack([self.start[:, 2], self.start[:, 2] + self.step[:, 2]])
        reach = (self.radius.max(1) + grow) / self.flatten + 1
        return np.flatnonzero((ends.min(0) - reach < z) & (ends.max(0) + reach > z))
