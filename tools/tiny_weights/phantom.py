"""A phantom of the trunk from the thighs to the neck, with the truth in TotalSegmentator's classes.

Its anatomy is computed from formulas: no patient's data are in it. It is simpler than the phantom of `voxelmill demo`
(whose shapes it draws with), but it has every bone of the trunk under its own name, and bodies that differ from seed to
seed in size, position, contrast medium and noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tiny_weights.anatomy import (
    NUMBER,
    POWER,
    SIDES,
    VERTEBRAE,
    chest_at,
    limbs,
    processes,
    ribs,
    spine_y,
)
from voxelmill_cli.phantom_shapes import Canvas, Tubes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from voxelmill_cli.phantom_shapes import Plane, Point

_LEFT_LUNG, _RIGHT_LUNG = NUMBER["lung_upper_lobe_left"], NUMBER["lung_upper_lobe_right"]
_LUNGS = (_LEFT_LUNG, _RIGHT_LUNG)
_OESOPHAGUS = Tubes.through([(4, 36, 260), (4, 38, 200), (2, 39, 100), (8, 26, -30), (22, 4, -48)], [6, 6, 6, 6.5, 7])
_AIRWAYS = Tubes.joined(
    [
        Tubes.through([(0, -4, 260), (0, 4, 215), (1, 10, 170), (0, 20, 98)], [9, 9, 9, 8.8]),
        Tubes.through([(0, 20, 98), (-34, 25, 74)], [7.4, 6.0]),
        Tubes.through([(0, 20, 98), (42, 27, 73)], [6.8, 5.6]),
    ]
)
_AORTA = Tubes.through(
    [(-2, -22, 50), (-12, -18, 80), (-10, -12, 115), (2, 4, 132), (16, 28, 130), (23, 42, 110), (22, 36, -60),
     (12, 26, -130), (6, 20, -205)],
    [14, 15, 15, 13, 13, 12.5, 12, 11, 10],
)  # fmt: skip
_VESSELS = Tubes.joined(
    [
        Tubes.through([(-27, -12, 50), (-28, -14, 100), (-24, -22, 150), (-22, -26, 200)], [9, 9, 8, 7]),
        Tubes.through([(10, -36, 60), (8, -14, 86), (18, 4, 90)], [12, 12, 10]),
        Tubes.through([(10, -4, 86), (-36, 12, 74)], [9.5, 8.5]),
        Tubes.through([(16, 0, 90), (40, 18, 82)], [10, 8.5]),
        Tubes.through([(-18, 10, -20), (-14, 22, -110), (-12, 22, -205)], [11, 10, 10]),
    ]
)


@dataclass(frozen=True, slots=True)
class Torso:
    """A computed CT of the trunk and its truth.

    Parameters
    ----------
    voxels
        int16 HU, (slices, rows, columns): slices towards the head, rows to the back, columns to the patient's left.
    labels
        uint8 of the same shape: 0, or n for `anatomy.STRUCTURES[n - 1]`.
    affine
        4x4, (column, row, slice) index to LPS millimetres.
    """

    voxels: npt.NDArray[np.int16]
    labels: npt.NDArray[np.uint8]
    affine: npt.NDArray[np.float64]

    def classes(self, numbers: Mapping[str, int]) -> npt.NDArray[np.uint8]:
        """Return the labels in other numbers of the classes, such as those of the task `total`; 0 if it has none."""
        table = np.zeros(len(NUMBER) + 1, np.uint8)
        for name, number in NUMBER.items():
            table[number] = numbers.get(name, 0)
        renumbered: npt.NDArray[np.uint8] = table[self.labels]
        return renumbered


@dataclass(frozen=True, slots=True)
class _Body:
    """What differs from one body to the next; drawn from its seed."""

    half_width: float
    half_depth: float
    fat_mm: float
    lung_hu: float
    heart_mm: float
    blood_hu: float
    cortex_hu: float
    marrow_hu: float
    organs: tuple[tuple[str | None, Point, Point, float], ...]
    arteries: Tubes
    ribs: list[tuple[int, Tubes]]
    cartilage: Tubes

    @classmethod
    def draw(cls, random: np.random.Generator) -> _Body:
        """Draw a body."""
        width, deep, fat = random.uniform(150, 172), random.uniform(106, 124), random.uniform(9, 20)
        contrast = random.uniform(60, 260) if random.random() < 0.5 else 0.0
        bones, cartilage = ribs((width - fat - 26, deep - 0.8 * fat - 22), random.uniform(4.0, 4.8))
        return cls(
            half_width=width,
            half_depth=deep,
            fat_mm=fat,
            lung_hu=random.uniform(-880, -780),
            heart_mm=random.uniform(0.92, 1.08),
            blood_hu=42.0 + contrast,
            cortex_hu=random.uniform(520, 820),
            marrow_hu=random.uniform(170, 300),
            organs=_draw_organs(random, contrast),
            arteries=_draw_arteries(random),
            ribs=bones,
            cartilage=cartilage,
        )

    def cavity(self, z: float) -> tuple[float, float]:
        """Return the half axes of the cavity of chest and belly at a height."""
        return chest_at(z, self.half_width - self.fat_mm - 26, self.half_depth - 0.8 * self.fat_mm - 22)


def _draw_organs(random: np.random.Generator, contrast: float) -> tuple[tuple[str | None, Point, Point, float], ...]:
    """Draw the organs below the diaphragm: class, middle, half axes, HU. Later ones lie over earlier ones."""

    def moved(x: float, y: float, z: float) -> Point:
        dx, dy, dz = random.uniform(-5, 5, 3)
        return x + dx, y + dy, z + dz

    gas = [
        (None, (random.uniform(-80, 80), random.uniform(-62, -20), random.uniform(-300, -140)), half, -900.0)
        for half in ((14.0, 10.0, 12.0), (20.0, 12.0, 10.0), (9.0, 9.0, 16.0))
    ]
    return (
        *gas,
        ("liver", moved(-56, -6, -62), (86, 82, 74), random.uniform(48, 66) + 0.25 * contrast),
        ("spleen", moved(86, 40, -52), (34, 40, 46), random.uniform(42, 58) + 0.3 * contrast),
        ("stomach", moved(60, -28, -54), (44, 42, 44), random.uniform(10, 40)),
        (None, (60.0, -48.0, -50.0), (26, 15, 26), -960.0),
        ("gallbladder", moved(-44, -52, -104), (14, 17, 24), random.uniform(2, 18)),
        ("kidney_right", moved(-62, 42, -122), (27, 25, 48), 32.0 + 0.6 * contrast),
        ("kidney_left", moved(62, 42, -112), (27, 25, 48), 32.0 + 0.6 * contrast),
        ("urinary_bladder", moved(0, -26, -338), (38, 32, 28), random.uniform(0, 15)),
    )


def _draw_arteries(random: np.random.Generator) -> Tubes:
    """Draw vessels that fan out from both hila."""
    parts = []
    for _, side in SIDES:
        for _ in range(14):
            hilum = np.array([side * 40.0, 18.0, 76.0])
            way = random.normal(0, 1, 3) * (0.5, 0.9, 1.2) + (side * 0.9, 0, 0)
            way /= np.linalg.norm(way)
            points = [_along(hilum, way, length_mm) for length_mm in (0.0, 32.0, 70.0)]
            parts.append(Tubes.through(points, [5.0, 3.2, 1.6]))
    return Tubes.joined(parts)


def _along(start: npt.NDArray[np.float64], way: npt.NDArray[np.float64], length_mm: float) -> Point:
    x, y, z = start + length_mm * way
    return float(x), float(y), float(z)


_PROCESSES = processes()
_LIMBS = limbs()


def make_torso(
    seed: int,
    spacing_mm: tuple[float, float, float] = (3.0, 3.0, 3.0),
    heights_mm: tuple[float, float] = (-430.0, 240.0),
) -> Torso:
    """Compute a phantom; the same arguments give the same one.

    Parameters
    ----------
    seed
        The body, its place in the field and the noise.
    spacing_mm
        The distance of columns, of rows (both the same) and of slices.
    heights_mm
        Where the lowest slice lies in a body of average size, and how far up the field reaches from there: a larger
        body shows less of its upper end. -430 is in the thighs, -60 in the liver, 60 at the heart's top, 240 in the
        neck.
    """
    random = np.random.default_rng([seed, 297])
    body = _Body.draw(random)
    size = random.uniform(0.9, 1.1) * random.uniform(0.96, 1.04, 3)
    shift = random.uniform(-12, 12, 3)
    field = (random.uniform(385, 440), random.uniform(300, 350))
    noise_hu = random.uniform(8, 26)
    # The body is drawn in its own millimetres; a larger one is the same body with smaller pixels.
    step = np.array(spacing_mm) / size
    counts = [max(8, round(extent / mm)) for extent, mm in zip(field, spacing_mm, strict=False)]
    counts.append(max(8, round((heights_mm[1] - heights_mm[0]) / spacing_mm[2])))
    first = shift / size - (np.array(counts) - 1) / 2.0 * step
    first[2] = heights_mm[0]
    x, y = (
        np.float32(first[axis]) + np.float32(step[axis]) * np.arange(counts[axis], dtype=np.float32) for axis in (0, 1)
    )
    voxels = np.empty(counts[::-1], np.int16)
    labels = np.empty(voxels.shape, np.uint8)
    for index in range(counts[2]):
        canvas = Canvas(x, y, float(first[2] + step[2] * index))
        _draw_slice(canvas, body)
        canvas.hu[:] += noise_hu * random.standard_normal(canvas.hu.shape, np.float32)
        voxels[index] = np.rint(np.clip(canvas.hu, -1024, 3071))
        labels[index] = canvas.labels
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = first * size
    return Torso(voxels, labels, affine)


def _draw_slice(canvas: Canvas, body: _Body) -> None:
    """Draw everything that a slice cuts, from the outside in."""
    _draw_trunk(canvas, body)
    _draw_belly(canvas, body)
    _draw_lungs(canvas, body)
    _draw_heart(canvas, body)
    _draw_skeleton(canvas, body)
    canvas.tubes(_AIRWAYS, 35.0, 0, grow=1.5)
    canvas.tubes(_AIRWAYS, -990.0, NUMBER["trachea"])
    _part_lungs(canvas)


def _draw_trunk(canvas: Canvas, body: _Body) -> None:
    """Draw the table, the fat under the skin, the muscles of the wall and the fat of the cavity."""
    box = canvas.whole()
    table = np.abs(canvas.y - (body.half_depth + 18.0))[:, None] - 9.0
    canvas.paint(box, np.maximum(table, (np.abs(canvas.x) - 195.0)[None, :]), -700.0, 0)
    shoulder = float(np.clip((canvas.z - 120.0) / 90.0, 0, 1))
    width, deep = body.half_width + 8.0 * shoulder, body.half_depth - 14.0 * shoulder
    canvas.paint(box, canvas.superellipse(box, (0, 0), (width, deep), POWER), -102.0, 0)
    wall = (width - body.fat_mm, deep - 0.8 * body.fat_mm)
    canvas.paint(box, canvas.superellipse(box, (0, 1.5), wall, POWER), 52.0, 0)
    canvas.paint(box, canvas.superellipse(box, (0, 0), body.cavity(canvas.z), POWER), -95.0, 0)


def _diaphragm(canvas: Canvas) -> Plane:
    """Return the height of the two domes of the diaphragm."""
    back = 78.0 * (((canvas.y + 10.0) / 100.0) ** 2)[:, None]
    right = 4.0 - 62.0 * (((canvas.x + 68.0) / 78.0) ** 2)[None, :] - back
    left = -8.0 - 62.0 * (((canvas.x - 68.0) / 78.0) ** 2)[None, :] - back
    height: Plane = np.maximum(np.maximum(right, left), -86.0).astype(np.float32)
    return height


def _draw_belly(canvas: Canvas, body: _Body) -> None:
    above = (canvas.z - _diaphragm(canvas)) * 0.7
    if above.min() > 1:
        return
    cavity = canvas.superellipse(canvas.whole(), (0, 0), body.cavity(canvas.z), POWER)
    canvas.paint(canvas.whole(), np.maximum(np.abs(above + 1.6) - 1.6, cavity), 50.0, 0)
    for name, middle, half, hu in body.organs:
        section = canvas.ellipsoid(middle, half)
        if section is not None and section[1].size:
            box, distance = section
            inside = np.maximum(np.maximum(distance, above[box] + 3.2), cavity[box] + 2.0)
            canvas.paint(box, inside, hu, NUMBER[name] if name else 0)


def _draw_lungs(canvas: Canvas, body: _Body) -> None:
    across, along = body.cavity(canvas.z)
    if across < 32:
        return
    box = canvas.whole()
    cavity = canvas.superellipse(box, (0, 0), (across - 3.0, along - 3.0), POWER)
    chest = np.maximum(cavity, (_diaphragm(canvas) - canvas.z) * 0.7)
    # The mediastinum is narrow in front, wide at the hila and around the spine.
    middle = 12.0 + 17.0 * np.clip((canvas.y + 70.0) / 70.0, 0, 1)
    density = np.broadcast_to((body.lung_hu + 0.22 * canvas.y)[:, None], chest.shape).astype(np.float32)
    for number, side in ((_LEFT_LUNG, 1.0), (_RIGHT_LUNG, -1.0)):
        beside = middle[:, None] - (side * canvas.x - 2.0 * side)[None, :]
        canvas.paint(box, np.maximum(chest, beside), density, number)
        canvas.tubes(body.arteries, body.blood_hu, number, only=(number,))


def _part_lungs(canvas: Canvas) -> None:
    """Give each lobe its number: oblique fissures fall towards the front, the horizontal one is at the hilum."""
    above = np.broadcast_to((canvas.z > 52.0 + 0.75 * canvas.y)[:, None], canvas.labels.shape)
    labels = canvas.labels
    left, right = labels == _LEFT_LUNG, labels == _RIGHT_LUNG
    labels[left & ~above] = NUMBER["lung_lower_lobe_left"]
    labels[right & ~above] = NUMBER["lung_lower_lobe_right"]
    if canvas.z < 62.0:
        labels[right & above] = NUMBER["lung_middle_lobe_right"]


def _draw_heart(canvas: Canvas, body: _Body) -> None:
    half = tuple(body.heart_mm * size for size in (58.0, 44.0, 54.0))
    only = (0, *_LUNGS, NUMBER["liver"], NUMBER["stomach"])
    for grow, hu, number in ((4.0, -80.0, 0), (0.0, 46.0 + 0.5 * (body.blood_hu - 42.0), NUMBER["heart"])):
        section = canvas.ellipsoid((18, -30, 24), (half[0] + grow, half[1] + grow, half[2] + grow))
        if section is not None:
            canvas.paint(*section, hu, number, only=only)
    canvas.tubes(_VESSELS, body.blood_hu, 0, only=(0, *_LUNGS, NUMBER["liver"]))
    canvas.tubes(_AORTA, body.blood_hu, NUMBER["aorta"])
    canvas.tubes(_OESOPHAGUS, 38.0, NUMBER["esophagus"], only=(0, *_LUNGS, NUMBER["stomach"]))


def _draw_skeleton(canvas: Canvas, body: _Body) -> None:
    canvas.tubes(body.cartilage, 95.0, NUMBER["costal_cartilages"])
    _draw_vertebra(canvas, body)
    _draw_sacrum(canvas, body)
    for parts, cortex_mm in ((body.ribs, 1.6), (_PROCESSES, 1.4), (_LIMBS, 2.6)):
        for number, tubes in parts:
            canvas.tubes(tubes, body.cortex_hu, number)
            canvas.tubes(tubes, body.marrow_hu, number, shrink=cortex_mm)
    _draw_canal(canvas)
    _draw_sternum(canvas, body)
    _draw_plates(canvas, body)


def _bone(canvas: Canvas, body: _Body, box: tuple[slice, slice], distance: Plane, number: int) -> None:
    canvas.paint(box, distance, body.cortex_hu, number)
    canvas.paint(box, distance + np.float32(2.0), body.marrow_hu, number)


def _draw_vertebra(canvas: Canvas, body: _Body) -> None:
    name, z, half, wide = min(VERTEBRAE, key=lambda vertebra: abs(canvas.z - vertebra[1]))
    off = abs(canvas.z - z) - half
    if off > 6.0:
        return
    middle, number = spine_y(canvas.z), NUMBER[name]
    box, section = canvas.disc(0, middle, wide, 0.8 * wide)
    canvas.paint(box, section + 1.0, 85.0, 0)
    _bone(canvas, body, box, np.maximum(section, off), number)
    # Lamina and pedicles: a ring about the canal, open between the levels for the nerves.
    box, ring = canvas.disc(0, middle + 21.0, 14.5, 13.5)
    _bone(canvas, body, box, np.maximum(ring, abs(canvas.z - z + 2.0) - 0.75 * half), number)


def _draw_sacrum(canvas: Canvas, body: _Body) -> None:
    share = (-263.0 - canvas.z) / 105.0
    if 0 < share < 1:
        middle = spine_y(canvas.z) + 26.0 * share
        box, section = canvas.disc(0, middle + 8.0, 52.0 - 38.0 * share, 24.0 - 14.0 * share)
        _bone(canvas, body, box, section, NUMBER["sacrum"])


def _draw_canal(canvas: Canvas) -> None:
    if canvas.z < -300.0:
        return
    for half, hu, number in ((9.5, 14.0, 0), (6.2, 40.0, NUMBER["spinal_cord"] if canvas.z > -120.0 else 0)):
        box, section = canvas.disc(0, spine_y(canvas.z) + 21.0, half, 0.92 * half)
        canvas.paint(box, section, hu, number)


def _draw_sternum(canvas: Canvas, body: _Body) -> None:
    ends = abs(canvas.z - 82.0) - 76.0
    if ends < 2:
        _, along = body.cavity(canvas.z)
        wide = 26.0 if canvas.z > 118 else 17.0
        box = canvas.box(0, -along - 6.0, wide, 9)
        section = canvas.superellipse(box, (0, -along - 6.0), (wide, 7.0), 3.0)
        _bone(canvas, body, box, np.maximum(section, ends), NUMBER["sternum"])


def _draw_plates(canvas: Canvas, body: _Body) -> None:
    """Draw the shoulder blades behind the ribs, and the wings and sockets of the hip bones."""
    for name, side in SIDES:
        share = (canvas.z - 52.0) / 120.0
        if 0 < share < 1.05:
            across, along = body.cavity(min(canvas.z, 95.0))
            inner, outer = 74.0 - 14.0 * share, 62.0 + 52.0 * min(1.0, 0.35 + share)
            middle = (inner + outer) / 2
            behind = along * max(0.0, 1 - (middle / across) ** POWER) ** (1 / POWER) + 15.0
            box = canvas.box(side * middle, behind, (outer - inner) / 2 + 6, 26)
            along_plate = (side * canvas.x[box[1]] - middle)[None, :]
            plate = np.abs(canvas.y[box[0]][:, None] - behind + 0.45 * along_plate) * 0.91 - 4.2
            _bone(
                canvas,
                body,
                box,
                np.maximum(plate, np.abs(along_plate) - (outer - inner) / 2),
                NUMBER[f"scapula_{name}"],
            )
        if -350.0 < canvas.z < -190.0:
            _draw_hip(canvas, body, side, NUMBER[f"hip_{name}"])


def _draw_hip(canvas: Canvas, body: _Body, side: float, number: int) -> None:
    """Draw a hip bone's wing (a part of an ellipsoid's shell) and the socket about the femur's head."""
    box = canvas.box(side * 84.0, 16.0, 62.0, 66.0)
    x, y = side * canvas.x[box[1]][None, :], canvas.y[box[0]][:, None]
    radius = np.sqrt(((x - 58.0) / 56.0) ** 2 + ((y - 12.0) / 62.0) ** 2 + ((canvas.z + 268.0) / 74.0) ** 2)
    wing = np.maximum(np.abs(radius - 1.0) * 58.0 - 5.5, np.maximum(62.0 - x - 0.3 * (y - 12.0), canvas.z + 204.0))
    wing = np.maximum(wing, -312.0 - canvas.z)
    socket = np.abs(np.sqrt((x - 88.0) ** 2 + (y - 4.0) ** 2 + (canvas.z + 328.0) ** 2) - 30.0) - 4.5
    socket = np.maximum(socket, np.maximum(x - 100.0, x - 92.0 - 0.6 * (canvas.z + 328.0)))
    _bone(canvas, body, box, np.minimum(wing, socket).astype(np.float32), number)
