"""The bones and the field of the torso: where they lie, which of TotalSegmentator's classes each one is.

Millimetres in LPS axes (the patient's left is +x, the back +y, the head +z) with the origin on the body's axis at the
height of the right diaphragm's top. Sizes are those of an adult (Gray's Anatomy), rounded to what a grid of 3 mm shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from voxelmill_cli.phantom_shapes import Tubes

if TYPE_CHECKING:
    from voxelmill_cli.phantom_shapes import Point

SIDES: Final = (("left", 1.0), ("right", -1.0))

VERTEBRAE: Final[tuple[tuple[str, float, float, float], ...]] = (
    *((f"vertebrae_C{number}", 215.0 + 22.0 * (7 - number), 8.5, 15.0) for number in (6, 7)),
    *((f"vertebrae_T{number}", 215.0 - 25.0 * number, 10.4, 15.5 + 0.3 * number) for number in range(1, 13)),
    *((f"vertebrae_L{number}", -81.0 - 33.0 * number, 14.0, 22.0 + 0.5 * number) for number in range(1, 6)),
)
"""Each vertebra: its class, the height of its middle, half its height and half its width, all mm."""

OTHERS: Final = (
    "spleen", "kidney_right", "kidney_left", "gallbladder", "liver", "stomach",
    "lung_upper_lobe_left", "lung_lower_lobe_left",
    "lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right",
    "esophagus", "trachea", "urinary_bladder", "heart", "aorta", "spinal_cord", "costal_cartilages",
)  # fmt: skip
"""What is drawn and is no bone."""

BONES: Final = (
    "sacrum", "sternum",
    *(f"{name}_{side}" for name in ("hip", "femur", "scapula", "clavicula") for side, _ in SIDES),
    *(name for name, *_ in VERTEBRAE),
    *(f"rib_{side}_{number}" for side, _ in SIDES for number in range(1, 13)),
)  # fmt: skip
"""The bones that are drawn."""

STRUCTURES: Final = (*OTHERS, *BONES)
"""Every structure by TotalSegmentator's name of its class; number n in a torso's labels is `STRUCTURES[n - 1]`."""

NUMBER: Final = {name: index for index, name in enumerate(STRUCTURES, start=1)}
"""The number of each structure in a torso's labels."""


def taught_as(name: str) -> str:
    """Return what a network is taught to call a structure.

    Networks as small as ours cannot count: to them each vertebra of neck and chest is the sixth of the chest, each of
    the loin the third of the loin, each rib the sixth of its side.
    """
    for prefix, one in (("vertebrae_L", "3"), ("rib_left_", "6"), ("rib_right_", "6")):
        if name.startswith(prefix):
            return prefix + one
    return "vertebrae_T6" if name.startswith("vertebrae_") else name


TAUGHT: Final = tuple(dict.fromkeys(taught_as(name) for name in STRUCTURES))
"""The structures that networks are taught."""

_RIB_ENDS = (2.25, 2.4, 2.5, 2.5, 2.45, 2.4, 2.3, 2.2, 2.1, 2.0, 1.4, 1.0)
_TRUE_RIBS = 7
POWER: Final = 2.4
"""How square the sections of trunk and chest are: the exponent of their superellipses."""


def spine_y(z: float) -> float:
    """Return where the vertebral bodies' middles lie: further in front in the loin and the neck (mm)."""
    loin = 12.0 * np.exp(-(((z + 195.0) / 70.0) ** 2))
    neck = 16.0 / (1.0 + np.exp(-(z - 225.0) / 14.0))
    return float(56.0 - loin - neck)


def chest_at(z: float, half_width: float, half_depth: float) -> tuple[float, float]:
    """Return the half axes of the chest's and belly's cavity at a height (mm): a dome above, narrower below."""
    apex = np.clip((z - 60.0) / 150.0, 0.0, 0.985)
    low = np.clip(-z / 300.0, 0.0, 0.2)
    scale = float(np.sqrt(1 - apex**2) * (1 - low))
    return half_width * scale, half_depth * (0.25 + 0.75 * scale)


def _rib_point(half: tuple[float, float], number: int, side: float, angle: float) -> Point:
    """Return a point of a rib's axis, at an angle from the back's middle: forwards it sinks."""
    drop = 34.0 if number == 1 else 62.0
    z = 217.0 - 25.0 * number - drop * 0.5 * (1.0 - np.cos(angle))
    across, along = chest_at(z, *half)
    sine, cosine = np.sin(angle), np.cos(angle)
    x = side * (across + 6.5) * abs(sine) ** (2 / POWER)
    y = (along + 6.5) * np.sign(cosine) * abs(cosine) ** (2 / POWER)
    return float(x), float(y), float(z)


def ribs(half: tuple[float, float], radius: float) -> tuple[list[tuple[int, Tubes]], Tubes]:
    """Return the ribs with their numbers in the labels, and all their cartilages.

    Parameters
    ----------
    half
        The half axes of the chest's cavity, mm.
    radius
        Half a rib's thickness, mm; it is higher than thick.
    """
    bones, cartilages = [], []
    for number, end in enumerate(_RIB_ENDS, start=1):
        for name, side in SIDES:
            angles = np.linspace(0.26, end, 30)
            points = [_rib_point(half, number, side, float(angle)) for angle in angles]
            bones.append((NUMBER[f"rib_{name}_{number}"], Tubes.through(points, [radius] * len(points), flatten=0.6)))
            if number <= _TRUE_RIBS:
                angles = np.linspace(end, 3.0, 10)
                points = [_rib_point(half, number, side, float(angle)) for angle in angles]
                cartilages.append(Tubes.through(points, [radius] * len(points), flatten=0.6))
    return bones, Tubes.joined(cartilages)


def processes() -> list[tuple[int, Tubes]]:
    """Return each vertebra's spinous and transverse processes with its number in the labels."""
    parts = []
    for name, z, half, _ in VERTEBRAE:
        middle, thick = spine_y(z), 0.42 * half
        spinous = Tubes.through([(0, middle + 33, z - 0.3 * half), (0, middle + 43, z - 1.2 * half)], [thick, thick])
        sides = [
            Tubes.through([(side * 12, middle + 22, z - 2), (side * 31, middle + 26, z + 1)], [thick, 0.9 * thick])
            for _, side in SIDES
        ]
        parts.append((NUMBER[name], Tubes.joined([spinous, *sides])))
    return parts


def limbs() -> list[tuple[int, Tubes]]:
    """Return clavicles, femora and the rods of the hip bones (pubis and ischium) with their numbers in the labels."""
    parts = []
    for name, side in SIDES:
        clavicle = [(side * 22, -44, 178), (side * 60, -52, 184), (side * 100, -32, 192), (side * 138, -14, 198)]
        parts.append((NUMBER[f"clavicula_{name}"], Tubes.through(clavicle, [6.5, 5.5, 5.5, 6.5])))
        femur = [
            Tubes.through([(side * 88, 4, -328), (side * 89, 4, -329)], [23, 23]),
            Tubes.through([(side * 90, 4, -330), (side * 122, 10, -352)], [14, 16]),
            Tubes.through([(side * 126, 12, -342), (side * 122, 8, -370), (side * 106, 0, -560)], [15, 17, 14]),
        ]
        parts.append((NUMBER[f"femur_{name}"], Tubes.joined(femur)))
        pubis = Tubes.through([(side * 66, -14, -322), (side * 34, -44, -330), (side * 9, -50, -346)], [9, 8, 10])
        ischium = Tubes.through(
            [(side * 72, 30, -335), (side * 62, 38, -378), (side * 36, -8, -382), (side * 10, -48, -358)],
            [13, 14, 7, 7],
        )
        parts.append((NUMBER[f"hip_{name}"], Tubes.joined([pubis, ischium])))
    return parts
