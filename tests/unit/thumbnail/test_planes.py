"""Which way pictures of a volume look, and whether a ball is round in them."""

from __future__ import annotations

from itertools import permutations, product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from voxelmill_shared.imaging import Volume, Window
from voxelmill_thumbnail.planes import Planes, draw_planes

if TYPE_CHECKING:
    from PIL import Image

WINDOW = Window(500, 1001)
SIZE = (40.0, 50.0, 60.0)
"""The made patient in mm: from right to left, front to back, feet to head."""


def patient(affine: Any, shape: tuple[int, int, int], where: Any) -> Volume:
    """Sample `where` (a function of LPS mm around the centre) on a grid of (slices, rows, columns)."""
    k, j, i = np.indices(shape)
    places = np.einsum("ab,b...->a...", affine, np.stack([i, j, k, np.ones(shape)]))[:3]
    return Volume(np.where(where(*places), 1000, 0).astype(np.int16), affine)


def grid(spacing: tuple[float, float, float], order: tuple[int, ...], signs: tuple[int, ...]) -> Any:
    """Return an affine centred on the patient whose index axes run along `order` with `signs`, and its shape."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    counts = []
    for axis, (along, sign) in enumerate(zip(order, signs, strict=True)):
        affine[along, axis] = sign * spacing[along]
        counts.append(round(SIZE[along] / spacing[along]) + 1)
    centre = affine[:3, :3] @ ((np.array(counts) - 1) / 2)
    affine[:3, 3] = -centre
    return affine, tuple(counts[::-1])


def centre_of_brightness(image: Image.Image) -> tuple[float, float]:
    """Where the bright part lies, from -1 (left, top) to 1 (right, bottom)."""
    levels = np.asarray(image, float)
    rows, columns = np.indices(levels.shape)
    total = levels.sum()
    return (
        float((columns * levels).sum() / total / (levels.shape[1] - 1) * 2 - 1),
        float((rows * levels).sum() / total / (levels.shape[0] - 1) * 2 - 1),
    )


ORIENTATIONS = list(product(permutations(range(3)), product((1, -1), repeat=3)))


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_left_front_and_head_are_where_radiologists_look_for_them(
    order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    """In all 48 orientations of the voxels: patient's left at the right, front up or left, head up."""
    affine, shape = grid((2, 2, 3), order, signs)
    volume = patient(affine, shape, lambda x, y, z: (x > -10) & (y < 10) & (z > -10))  # left, front, head
    planes = draw_planes(volume, WINDOW)
    across, down = centre_of_brightness(planes.axial.image)
    assert across > 0.1  # left
    assert down < -0.1  # front
    across, down = centre_of_brightness(planes.coronal.image)
    assert across > 0.1  # left
    assert down < -0.1  # head
    across, down = centre_of_brightness(planes.sagittal.image)
    assert across < -0.1  # front
    assert down < -0.1  # head
    across, down = centre_of_brightness(planes.mip.image)
    assert across > 0.1
    assert down < -0.1


def extent(image: Image.Image) -> tuple[int, int]:
    rows, columns = np.nonzero(np.asarray(image) > 127)
    return int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1


def lean(image: Image.Image) -> float:
    """How far the bright part leans: the correlation of its columns with its rows."""
    rows, columns = np.nonzero(np.asarray(image) > 127)
    return float(np.corrcoef(rows, columns)[0, 1])


def ball(x: Any, y: Any, z: Any) -> Any:
    return x**2 + y**2 + z**2 < 18**2


def pictures(planes: Planes) -> dict[str, Image.Image]:
    return {name: getattr(planes, name).image for name in ("axial", "coronal", "sagittal", "mip")}


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 3.0), (2.0, 1.0, 0.5), (1.0, 1.0, 1.0)])
def test_a_ball_is_round(spacing: tuple[float, float, float]) -> None:
    """Whatever the spacing, physical proportions are right in every picture."""
    planes = draw_planes(patient(*grid(spacing, (0, 1, 2), (1, 1, 1)), ball), WINDOW)
    for name, image in pictures(planes).items():
        width, height = extent(image)
        assert width / height == pytest.approx(1, abs=0.13), name


@pytest.mark.parametrize("tilt", [20.0, -20.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_ball_is_round_through_a_tilted_gantry(tilt: float, sign: int) -> None:
    """Slices tilted about the left-right axis, stepping along the table: the shear is undone, and not doubled."""
    angle = np.radians(tilt)
    affine = np.eye(4)
    affine[:3, 1] = np.array([0, np.cos(angle), np.sin(angle)])
    affine[:3, 2] = (0, 0, 2 * sign)
    shape = (41, 61, 51)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2)
    planes = draw_planes(patient(affine, shape, ball), WINDOW)
    for name, image in pictures(planes).items():
        assert abs(lean(image)) < 0.04, name
        width, height = extent(image)
        assert width / height == pytest.approx(1, abs=0.13), name


def test_preview_is_the_acquired_plane_at_full_resolution() -> None:
    """A sagittal series is shown as it was acquired, whatever its size; its planes are bounded."""
    affine = np.array([[0, 0, 5, 0], [0.1, 0, 0, 0], [0, -0.1, 0, 0], [0, 0, 0, 1.0]])
    voxels = np.zeros((3, 1200, 1100), np.int16)
    voxels[1] = 1000
    planes = draw_planes(Volume(voxels, affine), WINDOW)
    assert planes.preview.image.size == (1100, 1200)
    assert max(planes.sagittal.image.size) == 1024
    assert np.asarray(planes.preview.image).min() == 255


def test_inverted_planes() -> None:
    """MONOCHROME1 volumes show low values bright."""
    affine, shape = grid((2, 2, 2), (0, 1, 2), (1, 1, 1))
    plain = draw_planes(patient(affine, shape, ball), WINDOW)
    inverted = draw_planes(patient(affine, shape, ball), WINDOW, inverted=True)
    np.testing.assert_array_equal(np.asarray(inverted.axial.image), 255 - np.asarray(plain.axial.image))


def test_without_a_window_the_volume_gives_one() -> None:
    """Percentiles of the whole volume."""
    affine, shape = grid((1, 1, 1), (0, 1, 2), (1, 1, 1))
    planes = draw_planes(patient(affine, shape, ball), None)
    assert np.asarray(planes.axial.image).min() == 0
    assert np.asarray(planes.axial.image).max() == 255


def test_padding_gives_no_window() -> None:
    """Without a window the planes and the projection have the percentiles of what was measured."""
    values = np.tile(np.linspace(100, 200, 40, dtype=np.int16), (6, 40, 1))
    values[:, :25] = -32768
    planes = draw_planes(Volume(values, np.eye(4)), None, padding=(-32768, -32768))
    for plane in (planes.axial, planes.mip):
        assert np.ptp(np.asarray(plane.image, int)[-5:]) > 240
