"""A picture of the meshes: parallel projection, smooth shading, translucent skin and lungs.

Opaque segments are drawn into one depth buffer. Each translucent segment gets a layer of its own, its surface that is
nearest to the viewer; the layers of a pixel are laid over each other from back to front, denser where the surface is
seen at a slant, as thin glass is. Grooves are darkened by the depth around them (T. Luft, C. Colditz, O. Deussen,
"Image enhancement by unsharp masking the depth buffer", SIGGRAPH 2006).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from voxelmill_mesh.compiled import compiled
from voxelmill_mesh.normals import vertex_normals
from voxelmill_mesh.writers.gltf import linear

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from voxelmill_mesh.compiled import Array
    from voxelmill_mesh.writers.segment import ColouredMesh

_SAMPLES = 2
"""Samples along each side of a pixel."""

_MARGIN = 0.04
"""Free space around the patient, as a part of the picture."""

_TOWARDS_LIGHT = (-0.45, 0.55, 0.70)
"""Right, up, towards the viewer."""

_BACKGROUND_TOP = (0.020, 0.027, 0.040)
_BACKGROUND_BOTTOM = (0.055, 0.067, 0.090)
"""Linear RGB."""


@compiled
def _draw(places: Array, normals: Array, faces: Array, depth: Array, shown: Array) -> None:
    """Draw triangles: `places` are (right, down, towards the viewer) in samples; the nearest wins."""
    height, width = depth.shape
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, bx, by, cx, cy = places[a, 0], places[a, 1], places[b, 0], places[b, 1], places[c, 0], places[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area >= 0:  # the back of a face: rows run down, so a front turns clockwise
            continue
        for row in range(max(0, int(np.ceil(min(ay, by, cy)))), min(height - 1, int(np.floor(max(ay, by, cy)))) + 1):
            for column in range(
                max(0, int(np.ceil(min(ax, bx, cx)))), min(width - 1, int(np.floor(max(ax, bx, cx)))) + 1
            ):
                u = ((bx - column) * (cy - row) - (by - row) * (cx - column)) / area
                v = ((cx - column) * (ay - row) - (cy - row) * (ax - column)) / area
                w = 1 - u - v
                if u < 0 or v < 0 or w < 0:
                    continue
                near = u * places[a, 2] + v * places[b, 2] + w * places[c, 2]
                if near > depth[row, column]:
                    depth[row, column] = near
                    for axis in range(3):
                        shown[row, column, axis] = u * normals[a, axis] + v * normals[b, axis] + w * normals[c, axis]


def _axes(azimuth: float, elevation: float) -> NDArray[np.float64]:
    """Return the picture's right, up and towards-the-viewer directions as rows, in LPS."""
    turn, tilt = np.deg2rad(azimuth), np.deg2rad(elevation)
    towards = np.array([np.sin(turn) * np.cos(tilt), -np.cos(turn) * np.cos(tilt), np.sin(tilt)])
    right = np.array([np.cos(turn), np.sin(turn), 0.0])
    return np.stack([right, np.cross(towards, right), towards])


@compiled
def _mean_of_rows(values: Array, radius: int, means: Array) -> None:
    """Put the mean over 2 `radius` + 1 rows into each row of `means`; beyond the rim is the last row again."""
    rows, columns = values.shape
    sums = np.zeros(columns)
    for row in range(-radius, radius + 1):
        for column in range(columns):
            sums[column] += values[min(max(row, 0), rows - 1), column]
    for row in range(rows):
        enters, leaves = min(row + radius + 1, rows - 1), max(row - radius, 0)
        for column in range(columns):
            means[row, column] = sums[column] / (2 * radius + 1)
            sums[column] += np.float64(values[enters, column]) - values[leaves, column]


def _smooth_depth(depth: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Return the mean over a square of 2 `radius` + 1 samples, taken twice.

    As scipy's `uniform_filter1d` does it, which this service would need for nothing else: 113 MB, 0.15 s in each child.
    """
    result = depth
    for _ in range(4):
        means = np.empty_like(result)
        _mean_of_rows(result, radius, means)
        result = np.ascontiguousarray(means.T)
    return result


def _shade(shown: NDArray[np.float32], colour: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return linear RGB: light from the sky, a lamp at the upper left, a soft highlight."""
    normals = shown / np.maximum(np.linalg.norm(shown, axis=-1, keepdims=True), 1e-6)
    light = np.array(_TOWARDS_LIGHT, np.float32)
    light /= np.linalg.norm(light)
    halfway = light + np.array([0, 0, 1], np.float32)
    halfway /= np.linalg.norm(halfway)
    sky = 0.22 + 0.12 * normals[..., 1]
    lamp = 0.62 * np.clip(normals @ light, 0, None)
    gloss = 0.10 * np.clip(normals @ halfway, 0, None) ** 24
    result: NDArray[np.float32] = (sky + lamp)[..., None] * colour + gloss[..., None]
    return result


def _colour(segment: ColouredMesh) -> NDArray[np.float32]:
    return np.array([linear(value) for value in segment.rgb], np.float32)


def render(
    segments: Sequence[ColouredMesh],
    size: tuple[int, int] = (960, 720),
    azimuth: float = 0.0,
    elevation: float = 0.0,
    tell: Callable[[int], None] = lambda _: None,
) -> NDArray[np.uint8]:
    """Return a picture of segments, (height, width, 3) uint8 sRGB.

    Parameters
    ----------
    segments
        At least one, with at least one face each.
    size
        Width and height in pixels.
    azimuth
        Where the viewer stands, in degrees: 0 in front of the patient, whose left is then on the right as in an
        X-ray; 90 at the patient's left; 180 behind.
    elevation
        How far above the horizon the viewer stands, in degrees.
    tell
        Hears how many segments are drawn. What it raises ends the work.
    """
    width, height = size[0] * _SAMPLES, size[1] * _SAMPLES
    axes = _axes(azimuth, elevation)
    turned = [segment.mesh.vertices @ axes.T.astype(np.float32) for segment in segments]
    low = np.min([places.min(axis=0) for places in turned], axis=0)
    high = np.max([places.max(axis=0) for places in turned], axis=0)
    scale = (1 - 2 * _MARGIN) * min(width / max(high[0] - low[0], 1e-3), height / max(high[1] - low[1], 1e-3))
    middle = (low + high) / 2

    blank = np.float32(-np.inf)
    depth = np.full((height, width), blank, np.float32)
    height_share = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    top, bottom = np.array(_BACKGROUND_TOP, np.float32), np.array(_BACKGROUND_BOTTOM, np.float32)
    picture = np.broadcast_to(top + height_share * (bottom - top), (height, width, 3)).copy()
    layers: list[tuple[NDArray[np.float32], NDArray[np.float32], ColouredMesh]] = []
    for done, (segment, places) in enumerate(zip(segments, turned, strict=True)):
        tell(done)
        samples = (places - middle) * np.array([scale, -scale, 1], np.float32)
        samples[:, :2] += np.array([width / 2, height / 2], np.float32)
        normals = vertex_normals(segment.mesh) @ axes.T.astype(np.float32)
        shown = np.zeros((height, width, 3), np.float32)
        if segment.opacity < 1:
            layer = np.full((height, width), blank, np.float32)
            _draw(samples, normals, segment.mesh.faces, layer, shown)
            layers.append((layer, shown, segment))
        else:
            before = depth.copy()
            _draw(samples, normals, segment.mesh.faces, depth, shown)
            drawn = depth > before
            picture[drawn] = _shade(shown[drawn], _colour(segment))
    _darken_grooves(picture, depth, scale)
    _lay_over(picture, depth, layers)
    pixels = picture.reshape(size[1], _SAMPLES, size[0], _SAMPLES, 3).mean(axis=(1, 3))
    return _encode(pixels)


def _darken_grooves(picture: NDArray[np.float32], depth: NDArray[np.float32], scale: float) -> None:
    drawn = np.isfinite(depth)
    if not drawn.any():
        return
    filled = np.where(drawn, depth, depth[drawn].min())
    # Over about 6 mm, up to 25 mm. What is smaller than that fills the picture: further than its rim there is nothing.
    radius = min(max(1, round(6 * scale)), max(depth.shape))
    hollow = np.clip(_smooth_depth(filled, radius) - filled, 0, 25)
    picture[drawn] *= np.exp(-0.07 * hollow[drawn])[:, None]


def _lay_over(
    picture: NDArray[np.float32],
    depth: NDArray[np.float32],
    layers: Sequence[tuple[NDArray[np.float32], NDArray[np.float32], ColouredMesh]],
) -> None:
    """Lay translucent layers over a picture, each pixel's farthest first; what is behind `depth` is hidden."""
    if not layers:
        return
    order = np.argsort(np.stack([layer for layer, _, _ in layers]), axis=0)
    for rank in range(len(layers)):
        for number, (layer, shown, segment) in enumerate(layers):
            seen = (order[rank] == number) & np.isfinite(layer) & (layer > depth)
            normals = shown[seen]
            facing = np.abs(normals[:, 2]) / np.maximum(np.linalg.norm(normals, axis=1), 1e-6)
            dense = segment.opacity + (1 - segment.opacity) * 0.6 * (1 - facing) ** 3
            colours = _shade(normals, _colour(segment))
            picture[seen] = picture[seen] * (1 - dense)[:, None] + colours * dense[:, None]


def _encode(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return sRGB bytes of linear values (IEC 61966-2-1)."""
    share = np.clip(pixels, 0, 1)
    encoded = np.where(share <= 0.0031308, share * 12.92, 1.055 * share ** (1 / 2.4) - 0.055)
    result: NDArray[np.uint8] = np.rint(encoded * 255).astype(np.uint8)
    return result
