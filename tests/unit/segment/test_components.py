"""Connected components of all segments together, against a library that finds them in the whole volume at once."""

from __future__ import annotations

import cc3d
import numpy as np
import pytest

from voxelmill_segment.components import find_components


def expected(labels: np.ndarray) -> tuple[list[int], list[int]]:
    """Count with cc3d, label by label."""
    found, largest = [0] * 256, [0] * 256
    parts, number = cc3d.connected_components(labels, connectivity=26, return_N=True)
    sizes = np.bincount(parts.ravel(), minlength=number + 1)
    for part in range(1, number + 1):
        label = int(labels.ravel()[np.argmax(parts.ravel() == part)])
        found[label] += 1
        largest[label] = max(largest[label], int(sizes[part]))
    return found, largest


@pytest.mark.parametrize("shape", [(6, 9, 11), (1, 7, 5), (9, 1, 6), (5, 6, 1), (12, 13, 14)])
@pytest.mark.parametrize(("labels", "background"), [(2, 0.3), (4, 0.8), (200, 0.1), (1, 0.5)])
def test_components_are_those_of_the_whole_volume(shape: tuple[int, int, int], labels: int, background: float) -> None:
    """Noise has every way in which runs can touch: corners, edges, rings that close slices later."""
    rng = np.random.default_rng(labels)
    for _ in range(4):
        noise = rng.integers(1, labels + 1, shape).astype(np.uint8)
        noise[rng.random(shape) < background] = 0
        components, largest = find_components(noise)
        assert (components.tolist(), largest.tolist()) == expected(noise)


def test_arms_that_meet_slices_later_are_one() -> None:
    """A horseshoe is one component, whichever of its ends comes first; two rods are two."""
    horseshoe = np.zeros((5, 3, 9), np.uint8)
    horseshoe[:, 1, 1] = horseshoe[:, 1, 7] = 4
    assert find_components(horseshoe)[0][4] == 2
    horseshoe[4, 1, 1:8] = 4
    for way in (horseshoe, horseshoe[::-1]):
        components, largest = find_components(way)
        assert (components[4], largest[4]) == (1, 15)


def test_a_component_that_ends_is_counted_once() -> None:
    """Blobs with a slice between them; the last reaches the last slice."""
    labels = np.zeros((5, 4, 4), np.uint8)
    labels[0], labels[2, 0, 0], labels[4, :2] = 1, 1, 1
    components, largest = find_components(labels)
    assert (components[1], largest[1]) == (3, 16)


def test_an_empty_volume_has_none() -> None:
    """No label, no component."""
    components, largest = find_components(np.zeros((3, 4, 5), np.uint8))
    assert not components.any()
    assert not largest.any()
