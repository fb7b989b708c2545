"""The two loops give what scipy and numpy give, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from voxelmill_segment.totalsegmentator import kernels


@pytest.mark.parametrize("seed", range(12))
def test_resampling_is_scipys_zoom_cut_to_whole_numbers(seed: int) -> None:
    """Any shape, zoom, type and order of memory."""
    random = np.random.default_rng(seed)
    shape = tuple(int(n) for n in random.integers(3, 50, 3))
    zoom = random.uniform(0.4, 1.8, 3).astype(np.float32) / np.array([1.5, 1.5, 1.0])
    voxels = random.integers(-1024, 3072, shape).astype(np.int16)
    if seed % 2:
        voxels = (voxels + random.random(shape)).astype(np.float32)
    if seed % 3:
        voxels = np.asfortranarray(voxels)
    exact = ndimage.zoom(voxels, zoom, np.float64, order=1, mode="nearest").astype(np.int32)
    assert np.array_equal(kernels.resample_linear(voxels, zoom), exact.T)


def test_resampling_gives_way_to_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a compiler rounds otherwise, scipy itself is asked, and the result has the same form."""
    voxels = np.random.default_rng(1).integers(-1024, 3072, (9, 11, 13)).astype(np.int16)
    zoom = np.array([0.5, 0.7, 1.3])
    ours = kernels.resample_linear(voxels, zoom)
    monkeypatch.setattr(kernels, "_as_scipy", lambda: False)
    theirs = kernels.resample_linear(voxels, zoom)
    assert theirs.flags.c_contiguous
    assert theirs.dtype == ours.dtype == np.float32
    assert np.array_equal(ours, theirs)


def test_of_equal_logits_the_first_is_greatest() -> None:
    """Ties, both zeros, negative numbers and a part of a larger array: as numpy has them."""
    logits = np.random.default_rng(2).normal(0, 0.01, (9, 12, 7, 5)).astype(np.float16)
    logits = np.round(logits, 2)  # so that many are equal
    logits[:, 0] = 0.0
    logits[0, 0] = -0.0
    part = logits[:, 0:8]
    assert np.array_equal(kernels.argmax_half(part), part.argmax(0))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_refused(value: float) -> None:
    """An answer that overflowed says nothing."""
    logits = np.zeros((3, 2, 2, 2), np.float16)
    logits[1, 1, 0, 1] = value
    with pytest.raises(FloatingPointError, match="not finite"):
        kernels.argmax_half(logits)


@pytest.mark.parametrize(("samples", "voxels"), [(7, 20), (20, 7), (1, 5), (9, 9), (2, 3)])
def test_nearest_samples_are_those_of_zoom(samples: int, voxels: int) -> None:
    """One axis of a zoom of three."""
    cube = np.arange(samples, dtype=np.float64)[:, None, None] * np.ones((1, 4, 4))
    exact = ndimage.zoom(cube, (voxels / samples, 1, 1), order=0, mode="nearest")[:, 0, 0]
    assert np.array_equal(kernels.nearest_indices(samples, voxels), exact)
