"""The anatomy of the phantom: where the parts of a thorax lie and how dense they are.

Millimetres in LPS axes with the origin on the body's axis; the height 0 is near the top of the right diaphragm. Sizes
are those of an adult (Gray's Anatomy), densities those of CT at 120 kVp (Kamalian et al., Handb Clin Neurol 135, 2016;
for lung Hu et al., IEEE TMI 20:490, 2001). Sides: the patient's left is +x, the back +y, the head +z.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from voxelmill_cli.phantom_shapes import Canvas, Plane, Tubes
from voxelmill_segment.labels import (
    AIRWAYS,
    BONES,
    LUNG_LEFT,
    LUNG_RIGHT,
    SKIN,
    SOFT_TISSUE,
    SUBCUTANEOUS_FAT,
    TORSO_FAT,
)

if TYPE_CHECKING:
    from voxelmill_cli.phantom_shapes import Point

_BONE, _SOFT, _FAT = BONES.number, SOFT_TISSUE.number, TORSO_FAT.number
_LUNGS = (LUNG_LEFT.number, LUNG_RIGHT.number)
_SPINE_Y = 56.0
_PITCH_MM = 25.0
_TOP_VERTEBRA_Z = 190.0
_POWER = 2.4
_CORTEX_HU, _MARROW_HU = 720.0, 210.0


@dataclass(frozen=True, slots=True)
class Build:
    """What differs from one phantom to the next; drawn from its seed."""

    half_width: float
    half_depth: float
    fat_mm: float
    lung_hu: float
    heart_mm: float
    blood_hu: float
    arteries: Tubes
    ribs: Tubes
    cartilage: Tubes
    processes: Tubes

    @classmethod
    def draw(cls, random: np.random.Generator, contrast_hu: float) -> Build:
        """Draw a body."""
        width, deep, fat = random.uniform(156, 166), random.uniform(110, 118), random.uniform(11, 18)
        cavity = _Cavity(width - fat - 26, deep - 0.8 * fat - 22)
        return cls(
            half_width=width,
            half_depth=deep,
            fat_mm=fat,
            lung_hu=random.uniform(-870, -830),
            heart_mm=random.uniform(0.94, 1.06),
            blood_hu=42.0 + contrast_hu,
            arteries=Tubes.joined([_tree(random, side) for side in (-1.0, 1.0) for _ in range(2)]),
            ribs=Tubes.joined([_rib(cavity, number, side) for number in range(12) for side in (-1.0, 1.0)]),
            cartilage=Tubes.joined([_cartilage(cavity, number, side) for number in range(7) for side in (-1.0, 1.0)]),
            processes=Tubes.joined([part for number in range(14) for part in _processes(number)]),
        )

    def cavity(self, z: float) -> tuple[float, float]:
        """Return the half axes of the chest cavity at a height."""
        return _Cavity(self.half_width - self.fat_mm - 26, self.half_depth - 0.8 * self.fat_mm - 22).at(z)


@dataclass(frozen=True, slots=True)
class _Cavity:
    half_width: float
    half_depth: float

    def at(self, z: float) -> tuple[float, float]:
        """Narrow towards the apex like a dome, a little towards the abdomen."""
        apex = np.clip((z - 60.0) / 150.0, 0.0, 0.985)
        low = np.clip(-z / 300.0, 0.0, 0.2)
        scale = float(np.sqrt(1 - apex**2) * (1 - low))
        return self.half_width * scale, self.half_depth * (0.25 + 0.75 * scale)


def draw_slice(canvas: Canvas, build: Build) -> None:
    """Draw everything that a slice cuts, from the outside in."""
    _draw_table(canvas, build)
    _draw_wall(canvas, build)
    _draw_abdomen(canvas, build)
    _draw_lungs(canvas, build)
    _draw_heart(canvas, build)
    _draw_skeleton(canvas, build)
    _draw_airways(canvas)


def _draw_table(canvas: Canvas, build: Build) -> None:
    surface = build.half_depth + 6.0 - (canvas.x / 32.0) ** 2
    under = canvas.y[:, None] - surface[None, :]
    edge = (np.abs(canvas.x) - 195.0)[None, :]
    box = canvas.whole()
    canvas.paint(box, np.maximum(np.abs(under - 14.0) - 14.0, edge), -930.0, 0)
    for below in (0.0, 28.0):
        canvas.paint(box, np.maximum(np.abs(under - below) - 1.1, edge), -120.0, 0)


def _draw_wall(canvas: Canvas, build: Build) -> None:
    """Draw skin, subcutaneous fat, the muscles of the wall and the fat of the cavity."""
    shoulder = float(np.clip((canvas.z - 120.0) / 90.0, 0, 1))
    width, deep = build.half_width + 8.0 * shoulder, build.half_depth - 14.0 * shoulder
    box = canvas.whole()
    skin = canvas.superellipse(box, (0, 0), (width, deep), _POWER)
    canvas.paint(box, skin, 25.0, SKIN.number)
    canvas.paint(box, skin + 2.0, -105.0, SUBCUTANEOUS_FAT.number)
    # Fat is thinner at the back and thicker in front and at the sides.
    wall = (width - build.fat_mm, deep - 0.8 * build.fat_mm)
    canvas.paint(box, canvas.superellipse(box, (0, 1.5), wall, _POWER), 52.0, _SOFT)
    across, along = build.cavity(canvas.z)
    cavity = canvas.superellipse(box, (0, 0), (across, along), _POWER)
    # A sheet of fat lies between the layers of muscle.
    canvas.paint(box, np.abs(cavity - 14.0) - 1.0, -85.0, _FAT, only=(_SOFT,))
    canvas.paint(box, cavity, -98.0, _FAT)


def _diaphragm(canvas: Canvas) -> Plane:
    """Return the height of the two domes of the diaphragm."""
    right = 4.0 - 62.0 * (((canvas.x + 68.0) / 78.0) ** 2)[None, :] - 78.0 * (((canvas.y + 10.0) / 100.0) ** 2)[:, None]
    left = -8.0 - 62.0 * (((canvas.x - 68.0) / 78.0) ** 2)[None, :] - 78.0 * (((canvas.y + 10.0) / 100.0) ** 2)[:, None]
    height: Plane = np.maximum(np.maximum(right, left), -86.0).astype(np.float32)
    return height


def _draw_abdomen(canvas: Canvas, build: Build) -> None:
    box = canvas.whole()
    across, along = build.cavity(canvas.z)
    above = (canvas.z - _diaphragm(canvas)) * 0.7
    if above.min() > 1:
        return
    cavity = canvas.superellipse(box, (0, 0), (across, along), _POWER)
    canvas.paint(box, np.maximum(np.abs(above + 1.6) - 1.6, cavity), 50.0, _SOFT)
    for centre, half, hu, label in _ABDOMINAL_ORGANS:
        section = canvas.ellipsoid(centre, half)
        if section is not None:
            where, distance = section
            canvas.paint(where, np.maximum(np.maximum(distance, above[where] + 3.2), cavity[where] + 2.0), hu, label)


_ABDOMINAL_ORGANS: tuple[tuple[Point, Point, float, int], ...] = (
    ((-56, -6, -62), (86, 82, 74), 58.0, _SOFT),  # liver
    ((86, 40, -52), (34, 40, 46), 48.0, _SOFT),  # spleen
    ((60, -28, -54), (44, 42, 44), 30.0, _SOFT),  # stomach
    ((60, -48, -50), (26, 15, 26), -990.0, 0),  # the gas in it
)


def _draw_lungs(canvas: Canvas, build: Build) -> None:
    box = canvas.whole()
    across, along = build.cavity(canvas.z)
    if across < 32:
        return
    cavity = canvas.superellipse(box, (0, 0), (across - 3.0, along - 3.0), _POWER)
    above = (canvas.z - _diaphragm(canvas)) * 0.7
    chest = np.maximum(cavity, -above)
    # The mediastinum is narrow in front, wide at the hila and around the spine.
    middle = 12.0 + 17.0 * np.clip((canvas.y + 70.0) / 70.0, 0, 1)
    # Lung is denser where its weight presses it: towards the back.
    density = np.broadcast_to((build.lung_hu + 0.22 * canvas.y)[:, None], chest.shape).astype(np.float32)
    for segment, side in ((LUNG_LEFT, 1.0), (LUNG_RIGHT, -1.0)):
        beside = middle[:, None] - (side * canvas.x - 2.0 * side)[None, :]
        canvas.paint(box, np.maximum(chest, beside), density, segment.number)
    for numbers in _LUNGS:
        canvas.tubes(build.arteries, 40.0, numbers, only=(numbers,))


def _draw_heart(canvas: Canvas, build: Build) -> None:
    size = build.heart_mm
    for grow, hu, label in ((4.0, -80.0, _FAT), (0.0, 46.0, _SOFT)):
        section = canvas.ellipsoid((18, -30, 22), (size * (58 + grow), size * (44 + grow), size * (54 + grow)))
        if section is not None:
            canvas.paint(*section, hu, label, only=(_FAT, *_LUNGS, _SOFT))
    for centre, half in (((36, -34, 14), (24, 20, 28)), ((2, -34, 20), (22, 18, 26)), ((8, -12, 40), (26, 14, 18))):
        section = canvas.ellipsoid(centre, half)
        if section is not None:
            canvas.paint(*section, build.blood_hu, _SOFT)
    canvas.tubes(_GREAT_VESSELS, 48.0, _SOFT, grow=1.2)
    canvas.tubes(_GREAT_VESSELS, build.blood_hu, _SOFT)
    canvas.tubes(_OESOPHAGUS, 38.0, _SOFT)


_GREAT_VESSELS = Tubes.joined(
    [
        Tubes.through(
            [(-2, -22, 45), (-12, -18, 80), (-10, -12, 115), (2, 4, 132), (16, 28, 130), (23, 42, 110), (22, 36, -120)],
            [13, 14, 14, 12, 12, 11.5, 10],
        ),
        Tubes.through([(-27, -12, 50), (-28, -14, 100), (-24, -22, 150), (-22, -26, 185)], [9, 9, 8, 7]),
        Tubes.through([(10, -36, 60), (8, -14, 86), (18, 4, 90)], [12, 12, 10]),
        Tubes.through([(10, -4, 86), (-36, 12, 74)], [9.5, 8.5]),
        Tubes.through([(16, 0, 90), (40, 18, 82)], [10, 8.5]),
        Tubes.through([(2, 4, 132), (-10, -8, 170), (-20, -4, 215)], [6, 5, 4]),
        Tubes.through([(16, 24, 130), (20, 14, 170), (24, 8, 215)], [5, 4.5, 4]),
    ]
)
_OESOPHAGUS = Tubes.through([(4, 38, 215), (2, 39, 100), (8, 26, -30), (14, 18, -70)], [6, 6, 6.5, 7])

_BRONCHI = Tubes.joined(
    [
        Tubes.through([(0, 4, 230), (1, 10, 170), (0, 20, 98)], [9, 9, 8.8]),
        Tubes.through([(0, 20, 98), (-34, 25, 74), (-50, 40, 26), (-62, 50, -10)], [7.4, 6.4, 4.4, 2.6]),
        Tubes.through([(0, 20, 98), (42, 27, 73), (56, 42, 24), (68, 50, -10)], [6.8, 6.0, 4.4, 2.6]),
        Tubes.through([(-24, 23, 82), (-52, 18, 104), (-66, 8, 126)], [4.8, 4.0, 2.4]),
        Tubes.through([(42, 27, 73), (60, 10, 94), (68, 0, 118)], [4.6, 3.8, 2.4]),
        Tubes.through([(-40, 30, 58), (-62, 0, 44)], [3.8, 2.4]),
    ]
)


def _draw_airways(canvas: Canvas) -> None:
    canvas.tubes(_BRONCHI, 35.0, _SOFT, grow=1.5)
    canvas.tubes(_BRONCHI, -990.0, AIRWAYS.number)


def _draw_skeleton(canvas: Canvas, build: Build) -> None:
    canvas.tubes(build.cartilage, 95.0, _SOFT)
    _draw_spine(canvas)
    for tubes in (build.ribs, _CLAVICLES, build.processes):
        canvas.tubes(tubes, _CORTEX_HU, _BONE)
    for tubes, shrink in ((build.ribs, 1.2), (_CLAVICLES, 1.6), (build.processes, 1.3)):
        canvas.tubes(tubes, _MARROW_HU, _BONE, shrink=shrink)
    _draw_canal(canvas)
    _draw_sternum(canvas, build)
    _draw_scapulae(canvas, build)


_CLAVICLES = Tubes.joined(
    [
        Tubes.through(
            [(side * 22, -44, 178), (side * 60, -52, 184), (side * 100, -32, 192), (side * 138, -14, 198)],
            [6.5, 5.5, 5.5, 6.5],
        )
        for side in (-1.0, 1.0)
    ]
)


def _vertebra_z(number: int) -> float:
    return _TOP_VERTEBRA_Z + _PITCH_MM - _PITCH_MM * number


def _draw_spine(canvas: Canvas) -> None:
    number = round((_vertebra_z(0) - canvas.z) / _PITCH_MM)
    off = abs(canvas.z - _vertebra_z(number))
    box, body = canvas.disc(0, _SPINE_Y, 17.5, 14.0)
    canvas.paint(box, body + 1.0, 85.0, _SOFT)
    canvas.paint(box, np.maximum(body, off - 10.4), 620.0, _BONE)
    canvas.paint(box, np.maximum(body + 1.4, off - 9.2), 190.0, _BONE)
    # Lamina and pedicles: a ring about the canal, open between the levels for the nerves.
    where, ring = canvas.disc(0, _SPINE_Y + 21.0, 13.5, 13.0)
    level = abs(canvas.z - _vertebra_z(number) + 2.0) - 7.5
    canvas.paint(where, np.maximum(ring, level), 520.0, _BONE)


def _draw_canal(canvas: Canvas) -> None:
    for half, hu in ((8.8, 14.0), (5.2, 40.0)):
        box, distance = canvas.disc(0, _SPINE_Y + 21.0, half, 0.92 * half)
        canvas.paint(box, distance, hu, _SOFT)


def _processes(number: int) -> list[Tubes]:
    z = _vertebra_z(number)
    back = _SPINE_Y + 33.0
    spinous = Tubes.through([(0, back, z - 3), (0, back + 9, z - 14)], [4.2, 3.4])
    sides = [
        Tubes.through([(side * 12, _SPINE_Y + 22, z - 2), (side * 31, _SPINE_Y + 27, z + 1)], [4.4, 3.8])
        for side in (-1.0, 1.0)
    ]
    return [spinous, *sides]


_RIB_ENDS = (2.25, 2.4, 2.5, 2.5, 2.45, 2.4, 2.3, 2.2, 2.1, 2.0, 1.4, 1.0)


def _rib_point(cavity: _Cavity, number: int, side: float, angle: float) -> Point:
    """Return a point of a rib's axis, at an angle from the back's middle: forwards it sinks by up to 70 mm."""
    drop = 34.0 if number == 0 else 62.0
    z = _vertebra_z(number + 1) + 2.0 - drop * 0.5 * (1.0 - np.cos(angle))
    across, along = cavity.at(z)
    sine, cosine = np.sin(angle), np.cos(angle)
    x = side * (across + 6.5) * abs(sine) ** (2 / _POWER)
    y = (along + 6.5) * np.sign(cosine) * abs(cosine) ** (2 / _POWER)
    return float(x), float(y), float(z)


def _rib(cavity: _Cavity, number: int, side: float) -> Tubes:
    angles = np.linspace(0.26, _RIB_ENDS[number], 36)
    points = [_rib_point(cavity, number, side, float(angle)) for angle in angles]
    return Tubes.through(points, [3.6] * len(points), flatten=0.6)


def _cartilage(cavity: _Cavity, number: int, side: float) -> Tubes:
    angles = np.linspace(_RIB_ENDS[number], 3.0, 10)
    points = [_rib_point(cavity, number, side, float(angle)) for angle in angles]
    return Tubes.through(points, [3.6] * len(points), flatten=0.6)


def _draw_sternum(canvas: Canvas, build: Build) -> None:
    _, along = build.cavity(canvas.z)
    wide = 26.0 if canvas.z > 118 else 17.0
    ends = abs(canvas.z - 82.0) - 76.0
    if ends > 2:
        return
    box = canvas.box(0, -along - 6.0, wide, 8)
    distance = np.maximum(canvas.superellipse(box, (0, -along - 6.0), (wide, 6.5), 3.0), ends)
    canvas.paint(box, distance, 480.0, _BONE)
    canvas.paint(box, distance + np.float32(1.4), 160.0, _BONE)


def _draw_scapulae(canvas: Canvas, build: Build) -> None:
    """Draw two triangular plates behind the ribs, broad above and pointed below."""
    share = (canvas.z - 52.0) / 120.0
    if not 0 < share < 1.05:
        return
    across, along = build.cavity(min(canvas.z, 95.0))
    for side in (-1.0, 1.0):
        outer = 62.0 + 52.0 * min(1.0, 0.35 + share)
        inner = 74.0 - 14.0 * share
        bend = [
            (side * at, float(_behind(at, across, along)), canvas.z) for at in np.linspace(inner, outer, 9).tolist()
        ]
        plate = Tubes.through(bend, [2.2, 2.4, 2.4, 2.4, 2.6, 2.8, 3.2, 4.2, 5.2])
        canvas.tubes(plate, 560.0, _BONE)


def _behind(x: float, across: float, along: float) -> float:
    """Return the y of the scapula's plane: 15 mm outside the cavity."""
    inside = max(0.05, 1.0 - (x / (across + 17.0)) ** _POWER)
    return float((along + 15.0) * inside ** (1 / _POWER))


def _tree(random: np.random.Generator, side: float) -> Tubes:
    """Grow a tree of pulmonary vessels from the hilum: each branch forks in two, shorter and thinner (Weibel 1963)."""
    starts: list[Point] = []
    steps: list[Point] = []
    radii: list[tuple[float, float]] = []
    hilum = np.array([side * 34.0, 20.0, 66.0])
    front = [(hilum, np.array([side * 0.7, random.normal(0, 0.5), rise]), 5.2, 34.0) for rise in (1.0, 0.3, -0.5, -1.2)]
    for _ in range(7):
        grown = []
        for at, heading, radius, length in front:
            heading = heading / np.linalg.norm(heading)  # noqa: PLW2901 - normalised where it is used
            end = at + heading * length
            starts.append(tuple(at))
            steps.append(tuple(heading * length))
            radii.append((radius, radius * 0.8))
            outward = (end - hilum) / (np.linalg.norm(end - hilum) + 1e-6)
            grown += [
                (end, heading + 0.35 * outward + random.normal(0, 0.5, 3), radius * scale, length * 0.82)
                for scale in (0.78, 0.66)
            ]
        front = grown
    return Tubes(np.array(starts, np.float32), np.array(steps, np.float32), np.array(radii, np.float32))
