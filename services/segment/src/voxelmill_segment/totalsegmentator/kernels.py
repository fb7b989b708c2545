"""The two loops over all voxels that the libraries beneath do slowly, with the same arithmetic and so the same results.

`resample_linear` is `scipy.ndimage.zoom(order=1, mode="nearest")` on whole numbers, in the order of memory, in slabs
on every core, without a float64 copy of the volume: on 300 x 512 x 512 to 3 mm 15 times as fast. `argmax_half` is
`numpy.argmax` over the first axis of float16, which no processor's vector unit compares.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy import ndimage

from voxelmill_segment.grid import in_slabs

_HALF_INFINITY = 0x7C00


def resample_linear(voxels: npt.NDArray[Any], zoom: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Resample a volume as TotalSegmentator does: linearly between voxels, then cut to whole numbers.

    Parameters
    ----------
    voxels
        (x, y, z), of any strides.
    zoom
        By axis: samples for each voxel, as `scipy.ndimage.zoom` takes it.

    Returns
    -------
    ndarray
        (z, y, x), contiguous: what `zoom(voxels, zoom, order=1, mode="nearest")` in float64, cut to int32, gives.
    """
    if not _as_scipy():
        return np.ascontiguousarray(_scipy(voxels, zoom).T)
    shape = [round(n * factor) for n, factor in zip(voxels.shape, zoom, strict=True)]
    lower, fraction = zip(*(_samples(n, m) for n, m in zip(voxels.shape, shape, strict=True)), strict=True)
    result = np.empty(shape[::-1], np.float32)
    source = voxels.T  # (z, y, x): the order of memory of every volume here

    def fill(first: int, last: int) -> None:
        _interpolate(source, lower, fraction, result, first, last)

    in_slabs(fill, len(result))
    return result


def argmax_half(logits: npt.NDArray[np.float16]) -> npt.NDArray[np.uint8]:
    """Return where along the first axis the greatest value stands, of equal ones the first.

    Parameters
    ----------
    logits
        (classes, z, y, x), the last axis contiguous; at most 255 classes.

    Returns
    -------
    ndarray
        uint8 (z, y, x).

    Raises
    ------
    FloatingPointError
        If there are infinities or what is no number.
    """
    result = np.empty(logits.shape[1:], np.uint8)
    finite = np.ones(len(result), np.bool_)
    bits = logits.view(np.int16)

    def fill(first: int, last: int) -> None:
        _argmax(bits, result, finite, first, last)

    in_slabs(fill, len(result))
    if not finite.all():
        raise FloatingPointError("the network's answer holds numbers that are not finite")
    return result


def nearest_indices(samples: int, voxels: int) -> npt.NDArray[np.intp]:
    """Return for each of `voxels` positions which of `samples` lies nearest, as `zoom(order=0)` finds it."""
    if samples == voxels:
        return np.arange(voxels)
    places = np.arange(samples, dtype=np.float64)
    found: npt.NDArray[np.float64] = ndimage.zoom(places, voxels / samples, order=0, mode="nearest")
    return found.astype(np.intp)


def _samples(voxels: int, samples: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Return the voxel before each sample, and how far beyond it the sample lies (scipy's NI_ZoomShift)."""
    step = (voxels - 1) / (samples - 1) if samples > 1 else 1.0
    places = np.minimum(np.arange(samples, dtype=np.float64) * step, voxels - 1)
    lower = np.floor(places)
    return lower.astype(np.intp), places - lower


@cache
def _as_scipy() -> bool:
    """Say whether the loop rounds as scipy does here: a compiler may fuse products and sums, on ARM for one."""
    random = np.random.default_rng(0)
    voxels = random.integers(-1024, 3072, (23, 19, 29)).astype(np.int16)
    zoom = np.array([0.41, 1.37, 0.77])
    lower, fraction = zip(*(_samples(n, round(n * f)) for n, f in zip(voxels.shape, zoom, strict=True)), strict=True)
    result = np.empty([len(one) for one in lower[::-1]])
    _interpolate(voxels.T, lower, fraction, result, 0, len(result))
    exact: npt.NDArray[np.float64] = ndimage.zoom(voxels, zoom, np.float64, order=1, mode="nearest")
    return bool(np.array_equal(np.trunc(exact.T), result))


def _scipy(voxels: npt.NDArray[Any], zoom: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    exact: npt.NDArray[np.float64] = ndimage.zoom(voxels, zoom, np.float64, order=1, mode="nearest")
    return exact.astype(np.int32).astype(np.float32)


@njit(cache=True, nogil=True)
def _interpolate(
    source: npt.NDArray[Any],
    lower: tuple[npt.NDArray[np.intp], ...],
    fraction: tuple[npt.NDArray[np.float64], ...],
    result: npt.NDArray[Any],
    first: int,
    last: int,
) -> None:
    """Fill the slices `first` to `last` of the result; the order of products and sums is scipy's."""
    depth, height, width = source.shape
    x_lower, y_lower, z_lower = lower
    x_fraction, y_fraction, z_fraction = fraction
    for k in range(first, last):
        z0 = z_lower[k]
        z1 = min(z0 + 1, depth - 1)
        wz0 = 1.0 - z_fraction[k]
        wz1 = 1.0 - wz0
        for j in range(result.shape[1]):
            y0 = y_lower[j]
            y1 = min(y0 + 1, height - 1)
            wy0 = 1.0 - y_fraction[j]
            wy1 = 1.0 - wy0
            for i in range(result.shape[2]):
                x0 = x_lower[i]
                x1 = min(x0 + 1, width - 1)
                wx0 = 1.0 - x_fraction[i]
                wx1 = 1.0 - wx0
                value = np.float64(source[z0, y0, x0]) * wx0 * wy0 * wz0
                value += np.float64(source[z1, y0, x0]) * wx0 * wy0 * wz1
                value += np.float64(source[z0, y1, x0]) * wx0 * wy1 * wz0
                value += np.float64(source[z1, y1, x0]) * wx0 * wy1 * wz1
                value += np.float64(source[z0, y0, x1]) * wx1 * wy0 * wz0
                value += np.float64(source[z1, y0, x1]) * wx1 * wy0 * wz1
                value += np.float64(source[z0, y1, x1]) * wx1 * wy1 * wz0
                value += np.float64(source[z1, y1, x1]) * wx1 * wy1 * wz1
                result[k, j, i] = np.trunc(value)


@njit(cache=True, nogil=True)
def _argmax(
    bits: npt.NDArray[np.int16],
    result: npt.NDArray[np.uint8],
    finite: npt.NDArray[np.bool_],
    first: int,
    last: int,
) -> None:
    """Compare the bits of float16 as whole numbers, which have the same order once the sign is turned into one."""
    best = np.empty(bits.shape[3], np.int16)
    number = np.empty(bits.shape[3], np.uint8)
    for z in range(first, last):
        worst = np.int16(0)
        for y in range(bits.shape[2]):
            best[:] = -32767
            number[:] = 0
            for label in range(bits.shape[0]):
                row = bits[label, z, y]
                for x in range(len(row)):
                    size = np.int16(row[x] & 0x7FFF)
                    worst = max(worst, size)
                    value = size if row[x] >= 0 else np.int16(-size)
                    if value > best[x]:
                        best[x] = value
                        number[x] = label
            result[z, y] = number
        finite[z] = worst < _HALF_INFINITY
