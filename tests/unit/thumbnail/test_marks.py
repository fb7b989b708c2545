"""Letters at the edges of planes, for patients that lie in every way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from unit.shared.imaging_files import image, save
from voxelmill_shared.imaging import Volume, Window, read_series
from voxelmill_thumbnail.marks import Edges, edges_of, letters_of, mark
from voxelmill_thumbnail.planes import draw_planes

if TYPE_CHECKING:
    from pathlib import Path

WINDOW = Window(500, 1001)

POSITIONS = {
    # Patient Position (PS3.3 C.7.3.1.1.2): direction of the rows, of the columns, and what lies right of and below
    # the picture as the scanner shows it.
    "HFS": ((1, 0, 0), (0, 1, 0), "L", "P"),
    "HFP": ((-1, 0, 0), (0, -1, 0), "R", "A"),
    "FFS": ((-1, 0, 0), (0, 1, 0), "R", "P"),
    "FFP": ((1, 0, 0), (0, -1, 0), "L", "A"),
    "HFDR": ((0, 1, 0), (-1, 0, 0), "P", "R"),
    "HFDL": ((0, -1, 0), (1, 0, 0), "A", "L"),
    "FFDR": ((0, -1, 0), (-1, 0, 0), "A", "R"),
    "FFDL": ((0, 1, 0), (1, 0, 0), "P", "L"),
    "coronal": ((1, 0, 0), (0, 0, -1), "L", "F"),
    "sagittal": ((0, 1, 0), (0, 0, -1), "P", "F"),
}
OPPOSITE = dict(zip("RLAPHF", "LRPAFH", strict=True))


@pytest.mark.parametrize("name", POSITIONS)
def test_letters_of_known_patient_positions(name: str) -> None:
    """The edges of the picture as acquired, for a patient on the back, the face or a side, head or feet first."""
    across, down, right, bottom = POSITIONS[name]
    edges = edges_of(np.array(across), np.array(down))
    assert edges == Edges(OPPOSITE[right], right, OPPOSITE[bottom], bottom)


@pytest.mark.parametrize(
    ("direction", "letters"),
    [
        ((0.98, 0.17, 0.1), "L"),  # 10 degrees
        ((np.cos(np.radians(20)), np.sin(np.radians(20)), 0), "LP"),
        ((0.2, -0.9, 0.4), "AH"),
        ((-0.4, 0.1, -0.9), "FR"),
        ((0, 0, 7), "H"),
        ((-1, -1, -1), "RA"),
    ],
)
def test_oblique_directions_have_the_two_nearest_letters(direction: tuple[float, ...], letters: str) -> None:
    """The nearer first; one letter where the direction leans by less than 15 degrees."""
    assert letters_of(np.array(direction)) == letters


def brightest_edge(plane: Any, letter: str) -> bool:
    """Whether the half of the picture at the edge of this letter is brighter than the other."""
    levels = np.asarray(plane.image, float)
    rows, columns = levels.shape[0] // 2, levels.shape[1] // 2
    edges = plane.edges
    halves = {
        edges.left: levels[:, :columns].mean() - levels[:, -columns:].mean(),
        edges.top: levels[:rows].mean() - levels[-rows:].mean(),
    }
    halves |= {edges.right: -halves[edges.left], edges.bottom: -halves[edges.top]}
    return bool(halves[letter] > 20)


@pytest.mark.parametrize("name", POSITIONS)
@pytest.mark.parametrize("step", [1, -1])
def test_planes_show_each_side_at_its_letter(tmp_path: Path, name: str, step: int) -> None:
    """A made patient that is bright at the left, in front and at the head, read from files in every position."""
    across, down, *_ = (np.array(part) for part in POSITIONS[name][:2])
    normal = np.cross(across, down) * step
    k, j, i = np.indices((16, 16, 16))
    places = (
        np.einsum("a,...->...a", across, i) + np.einsum("a,...->...a", down, j) + np.einsum("a,...->...a", normal, k)
    )
    centre = (across + down + normal) * 7.5
    x, y, z = np.moveaxis(places - centre, -1, 0)
    stored = (1024 + 100 + 300 * (x > 0) + 300 * (y < 0) + 300 * (z > 0)).astype(np.int16)
    paths = [
        save(
            image(
                stored[n],
                ImagePositionPatient=[float(value) for value in normal * n],
                ImageOrientationPatient=[float(value) for value in (*across, *down)],
            ),
            tmp_path / f"{n}.dcm",
        )
        for n in range(16)
    ]
    planes = draw_planes(read_series(paths), WINDOW)
    assert planes.axial.edges == Edges("R", "L", "A", "P")
    assert planes.coronal.edges == planes.mip.edges == Edges("R", "L", "H", "F")
    assert planes.sagittal.edges == Edges("A", "P", "H", "F")
    for plane in (planes.axial, planes.coronal, planes.sagittal):
        for letter in "LAH":
            if letter in {plane.edges.left, plane.edges.right, plane.edges.top, plane.edges.bottom}:
                assert brightest_edge(plane, letter)


def test_an_oblique_volume_says_so() -> None:
    """Turned by 30 degrees about the feet-to-head axis and by none about the others."""
    cosine, sine = np.cos(np.radians(30)), np.sin(np.radians(30))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    planes = draw_planes(Volume(np.zeros((9, 9, 9), np.int16), affine), WINDOW)
    assert planes.axial.edges == Edges("RA", "LP", "AL", "PR")
    assert planes.coronal.edges == Edges("RA", "LP", "H", "F")
    assert planes.sagittal.edges == Edges("AL", "PR", "H", "F")


@pytest.mark.parametrize("ground", [0, 128, 255])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_letters_can_be_read_on_any_ground(ground: int, mode: str) -> None:
    """There is white in black at all four edges, and the picture itself is left as it was elsewhere."""
    plain = Image.new(mode, (200, 150), (ground,) * 3 if mode == "RGB" else ground)
    marked = np.asarray(mark(plain, Edges("R", "L", "A", "P")).convert("L"))
    edges = marked[50:100, :25], marked[50:100, -25:], marked[:25, 70:130], marked[-25:, 70:130]
    for edge in edges:
        assert np.count_nonzero(edge > 180) > 10
        assert np.count_nonzero(edge < 80) > 10
    assert (marked[40:110, 40:160] == ground).all()
    assert np.asarray(plain.convert("L")).std() == 0  # the original is not drawn into


def test_the_letters_are_those_of_the_edges() -> None:
    """Each text is drawn at its own edge: another text there makes another picture there and nowhere else."""
    plain = Image.new("L", (200, 200))
    one = np.asarray(mark(plain, Edges("R", "L", "A", "P"))).astype(int)
    for edges, part in [
        (Edges("H", "L", "A", "P"), np.s_[:, :60]),
        (Edges("R", "H", "A", "P"), np.s_[:, -60:]),
        (Edges("R", "L", "H", "P"), np.s_[:60]),
        (Edges("R", "L", "A", "H"), np.s_[-60:]),
    ]:
        changed = one != np.asarray(mark(plain, edges))
        assert changed[part].any()
        assert changed.sum() == changed[part].sum()


@pytest.mark.parametrize(
    ("size", "across", "down"), [((200, 30), True, False), ((30, 200), False, True), ((20, 20), False, False)]
)
def test_what_has_no_room_is_left_out(size: tuple[int, int], across: bool, down: bool) -> None:
    """A flat picture has letters at its short edges only, a tiny one none."""
    plain = Image.new("L", size)
    assert (mark(plain, Edges("R", "L", "", "")) != plain) is across
    assert (mark(plain, Edges("", "", "A", "P")) != plain) is down
