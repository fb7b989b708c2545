"""The picture of the meshes."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import uniform_filter

from unit.mesh.shapes import affine, ellipsoid, meshes_of
from voxelmill_mesh.render import _smooth_depth, render
from voxelmill_mesh.writers.png import write_png
from voxelmill_mesh.writers.segment import ColouredMesh

if TYPE_CHECKING:
    from pathlib import Path

RED, BLUE = (220, 40, 40), (40, 60, 220)


def pair(opacity: float = 1.0) -> list[ColouredMesh]:
    """A red ball at the patient's left and front, a blue one at the right and back."""
    ball = ellipsoid((9, 9, 9))
    size = ball.shape[0]
    labels = np.zeros((size, 2 * size, 2 * size), np.uint8)
    labels[:, :size, size:] = ball
    labels[:, size:, :size] = ball * 2
    meshes = meshes_of(labels, affine((1, 0, 0), (0, 1, 0), (0, 0, 1)))
    return [ColouredMesh("red", RED, opacity, meshes[1]), ColouredMesh("blue", BLUE, 1.0, meshes[2])]


def where(picture: np.ndarray, channel: int) -> tuple[float, float]:
    """Return the mean column and row of the pixels in which a channel clearly leads."""
    values = picture.astype(int)
    others = np.delete(values, channel, axis=2).max(axis=2)
    rows, columns = np.nonzero(values[..., channel] > others + 40)
    assert len(rows)
    return float(columns.mean()), float(rows.mean())


def test_the_patients_left_is_on_the_right() -> None:
    """Seen from the front, as in an X-ray; from behind it is the other way round."""
    front = render(pair(), (120, 90))
    assert front.shape == (90, 120, 3)
    assert where(front, 0)[0] > where(front, 2)[0]
    back = render(pair(), (120, 90), azimuth=180)
    assert where(back, 0)[0] < where(back, 2)[0]


def test_the_nearer_hides_the_farther_and_glass_does_not() -> None:
    """From the patient's left front the red ball stands before the blue one; translucent, it lets blue through."""
    opaque = render(pair(), (96, 96), azimuth=45)
    middle = opaque[48, 48].astype(int)
    assert middle[0] > middle[2] + 40
    glass = render(pair(opacity=0.2), (96, 96), azimuth=45)
    middle = glass[48, 48].astype(int)
    assert middle[2] > middle[0] + 20
    assert where(render(pair(), (96, 96), azimuth=225), 2), "from the other side the blue one is in front"


def test_up_is_superior() -> None:
    """The lower slice is lower in the picture."""
    labels = np.zeros((40, 20, 20), np.uint8)
    labels[2:18, 2:18, 2:18] = 1
    labels[22:38, 2:18, 2:18] = 2
    meshes = meshes_of(labels)
    picture = render([ColouredMesh("a", RED, 1.0, meshes[1]), ColouredMesh("b", BLUE, 1.0, meshes[2])], (60, 90))
    assert where(picture, 0)[1] > where(picture, 2)[1]


def test_what_is_tiny_takes_no_more_room_than_what_is_large() -> None:
    """A voxel of a micrometre fills the picture; how far around a pixel is looked for grooves ends at its rim."""
    cube = np.ones((1, 1, 1), np.uint8)
    tiny, large = (meshes_of(cube, affine((size, 0, 0), (0, size, 0), (0, 0, size)))[1] for size in (0.001, 100))
    peaks = []
    for mesh in (large, tiny):
        tracemalloc.start()
        assert render([ColouredMesh("a", RED, 1.0, mesh)], (40, 30)).max() > 100
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 4 * peaks[0] + 2**20


def test_png_read_back_is_the_picture(tmp_path: Path) -> None:
    """Pixel for pixel by an independent reader, with sound checksums."""
    picture = render(pair(), (50, 40))
    write_png(picture, tmp_path / "a.png")
    body = (tmp_path / "a.png").read_bytes()
    with Image.open(BytesIO(body)) as image:
        image.load()
        np.testing.assert_array_equal(np.asarray(image), picture)
    length = struct.unpack_from(">I", body, 8)[0]
    assert struct.unpack_from(">I", body, 16 + length)[0] == zlib.crc32(body[12 : 16 + length])


@pytest.mark.parametrize("radius", [1, 7, 60])
def test_the_depth_around_a_sample_is_a_mean_as_scipys(radius: int) -> None:
    """Taken twice; beyond the rim is the last sample again, also where the square is larger than the picture."""
    depth = np.random.default_rng(3).normal(0, 50, (40, 55)).astype(np.float32)
    expected = depth
    for _ in range(2):
        expected = uniform_filter(expected, 2 * radius + 1, mode="nearest")
    np.testing.assert_allclose(_smooth_depth(depth, radius), expected, atol=1e-3)
