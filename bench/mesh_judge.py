"""What is a set of surfaces worth? Topology, volume, distance and gaps, by arithmetic that no maker of them shares.

- closed: every edge, with its direction, belongs to one face, and its reverse to one other; no face has a corner twice.
- sound: closed, one fan of faces at each vertex, no face twice or without area, seen from outside.
- volume: of the surface, by the divergence theorem with its sign, against the count of the label's voxels.
- distance: points spread evenly over the surface, to the marching cubes (Lewiner's, scikit-image) of the label, and as
  many points of these to the surface: what is missing counts as what is too much.
- gap: at faces between voxels of two labels, two voxels or more from any other label, the nearest point of the one
  surface is taken, and measured how far the other surface is from it; and the other way round.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.measure import marching_cubes

from mesh_distance import Surface

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Points = NDArray[np.float64]

SAMPLES = 4000
"""Points on each surface, and on the marching cubes of each label."""

PAIR_SAMPLES = 200
"""Points on the boundary of each pair of labels."""

_TRIED = 2000
_APART = 2
_NAMED = 5
_THREADS = 2


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean, 95th and 99th percentile and largest of some values."""

    mean: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Points) -> Spread:
        """Describe some values; NaN if there are none."""
        if not len(values):
            return cls(*[float("nan")] * 4)
        p95, p99 = np.percentile(values, (95, 99))
        return cls(float(values.mean()), float(p95), float(p99), float(values.max()))


@dataclass(frozen=True, slots=True)
class Topology:
    """Whether a surface is closed, and what else is wrong with it.

    `pinched` are vertices where several fans of faces meet, `double` faces with the corners of another, `flat` those
    without area. Of a surface that is not closed nothing is `pinched`.
    """

    closed: bool
    pinched: int
    double: int
    flat: int

    @property
    def sound(self) -> bool:
        """Whether the surface is a closed manifold whose faces all have an area."""
        return self.closed and not (self.pinched or self.double or self.flat)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the judge says of all surfaces of one way. Volumes in percent, lengths in mm.

    `sound` are those that are closed manifolds without flat faces and look outward; `inverted` look inward, and their
    error of volume is about 200 %.
    `worst` names the labels with the largest errors of volume; a label without a surface has an error of 100 %.
    `farthest` names those with the largest distances: where a part is lost, or was not there.
    """

    labels: int
    triangles: int
    sound: int
    closed: int
    pinched: int
    double: int
    flat: int
    inverted: int
    volume: Spread
    distance: Spread
    gap: Spread
    worst: dict[int, float]
    farthest: dict[int, float]
    open_labels: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Mesh:
    vertices: Points
    faces: NDArray[np.int64]

    @cached_property
    def surface(self) -> Surface:
        return Surface(self.vertices, self.faces)

    @cached_property
    def corners(self) -> Points:
        return self.vertices[self.faces]

    def volume(self) -> float:
        """Return the signed volume in mm³, positive if the faces look outward."""
        corners = self.corners - self.vertices.mean(axis=0)
        return float(np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6)

    def areas(self) -> Points:
        corners = self.corners
        crossed = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        return np.asarray(np.linalg.norm(crossed, axis=1) / 2)

    def sample(self, count: int, seed: int) -> Points:
        """Return points spread evenly over the surface, always the same."""
        random = np.random.default_rng(seed)
        sums = np.cumsum(self.areas())
        places = (np.arange(count) + random.random(count)) / count * sums[-1]
        chosen = self.corners[np.searchsorted(sums, places).clip(max=len(sums) - 1)]
        a, b = random.random((2, count, 1))
        beyond = a + b > 1
        a, b = np.where(beyond, 1 - a, a), np.where(beyond, 1 - b, b)
        return np.asarray(chosen[:, 0] + a * (chosen[:, 1] - chosen[:, 0]) + b * (chosen[:, 2] - chosen[:, 0]))

    def topology(self) -> Topology:
        """Judge how the faces hang together, by the vertices' numbers alone."""
        faces, count = self.faces, len(self.vertices)
        tails, heads = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
        order = np.argsort(tails * count + heads)
        keys = (tails * count + heads)[order]
        back = heads * count + tails
        place = np.searchsorted(keys, back).clip(max=len(keys) - 1)
        closed = bool((np.diff(keys) > 0).all() and (keys[place] == back).all() and (tails != heads).all())
        triples = np.sort(faces, axis=1)
        unique = len(np.unique((triples[:, 0] * count + triples[:, 1]) * count + triples[:, 2]))
        pinched = _fans(order[place]) - len(np.unique(tails)) if closed else 0
        return Topology(closed, pinched, len(faces) - unique, int((self.areas() == 0).sum()))


def _fans(twins: NDArray[np.int64]) -> int:
    """Return how many fans the corners of a closed surface make; half edge h starts at corner h."""
    halves = np.arange(len(twins))
    following = halves - halves % 3 + (halves + 1) % 3
    around = following[twins]  # it starts at the same vertex, in the next face of the fan
    graph = coo_array((np.ones(len(halves), bool), (halves, around)), shape=(len(halves), len(halves)))
    return int(connected_components(graph, directed=False)[0])


class Judge:
    """A label map, with what is measured of it once.

    Parameters
    ----------
    labels
        (slices, rows, columns), uint8.
    spacing
        The size of a voxel along these axes, mm.
    samples, pair_samples
        How many points are taken of each surface and of each boundary.
    """

    def __init__(
        self, labels: NDArray[np.uint8], spacing: Points, samples: int = SAMPLES, pair_samples: int = PAIR_SAMPLES
    ) -> None:
        self._labels = labels
        self._spacing = spacing
        self._samples = samples
        self._boxes = {place: box for place, box in enumerate(ndimage.find_objects(labels), 1) if box is not None}
        counts = np.bincount(labels.ravel(), minlength=256)
        self._volumes = {label: float(counts[label] * np.prod(spacing)) for label in self._boxes}
        self._boundaries = _boundaries(labels, spacing, pair_samples)

    def judge(self, folder: Path, phase: str) -> Judgement:
        """Judge the surfaces that stand in a folder, `before` or `after` decimation."""
        meshes = {label: mesh for label in self._boxes if (mesh := _read(folder, label, phase)) is not None}
        with ThreadPoolExecutor(_THREADS) as pool:
            topologies = dict(zip(meshes, pool.map(_Mesh.topology, meshes.values()), strict=True))
            distances = list(pool.map(self._distances, meshes, meshes.values()))
            pairs = [(meshes[a], meshes[b], at) for (a, b), at in self._boundaries.items() if {a, b} <= meshes.keys()]
            gaps = list(pool.map(_gaps, pairs))
        volumes = {label: mesh.volume() for label, mesh in meshes.items()}
        errors = {label: 100 * abs(volumes.get(label, 0.0) / self._volumes[label] - 1) for label in self._boxes}
        each = topologies.values()
        return Judgement(
            labels=len(self._boxes),
            triangles=sum(len(mesh.faces) for mesh in meshes.values()),
            sound=sum(one.sound and volumes[label] > 0 for label, one in topologies.items()),
            closed=sum(one.closed for one in each),
            pinched=sum(one.pinched for one in each),
            double=sum(one.double for one in each),
            flat=sum(one.flat for one in each),
            inverted=sum(volume < 0 for volume in volumes.values()),
            volume=Spread.of(np.array(list(errors.values()))),
            distance=Spread.of(np.concatenate(distances or [np.empty(0)])),
            gap=Spread.of(np.concatenate(gaps or [np.empty(0)])),
            worst=_largest(errors),
            farthest=_largest({label: float(one.max()) for label, one in zip(meshes, distances, strict=True)}),
            open_labels=tuple(label for label in self._boxes if label not in meshes or not topologies[label].closed),
        )

    def _distances(self, label: int, mesh: _Mesh) -> Points:
        box = self._boxes[label]
        mask = np.pad(self._labels[box] == label, 1)
        vertices, faces, *_ = marching_cubes(mask, 0.5, spacing=tuple(self._spacing))
        vertices = vertices + (np.array([part.start for part in box]) - 1) * self._spacing
        raw = _Mesh(vertices[:, ::-1].astype(np.float64), faces.astype(np.int64))
        there = raw.surface.distance(mesh.sample(self._samples, label))
        back = mesh.surface.distance(raw.sample(self._samples, label))
        return np.concatenate([there, back])


def _largest(values: dict[int, float]) -> dict[int, float]:
    return dict(sorted(values.items(), key=lambda item: -item[1])[:_NAMED])


def _read(folder: Path, label: int, phase: str) -> _Mesh | None:
    path = folder / f"{label}-{phase}-faces.npy"
    if not path.exists():
        return None
    faces = np.load(path).astype(np.int64)
    return _Mesh(np.load(folder / f"{label}-{phase}-vertices.npy").astype(np.float64), faces) if len(faces) else None


def _gaps(pair: tuple[_Mesh, _Mesh, Points]) -> Points:
    first, second, places = pair
    there = second.surface.distance(first.surface.nearest(places))
    back = first.surface.distance(second.surface.nearest(places))
    return np.concatenate([there, back])


def _boundaries(labels: NDArray[np.uint8], spacing: Points, samples: int) -> dict[tuple[int, int], Points]:
    """Return places (column, row, slice) in mm on the boundary of each pair of labels."""
    random = np.random.default_rng(1)
    found: dict[tuple[int, int], list[Any]] = {}
    for axis in range(3):
        before = labels[tuple(slice(None, -1) if each == axis else slice(None) for each in range(3))]
        after = labels[tuple(slice(1, None) if each == axis else slice(None) for each in range(3))]
        flat = np.flatnonzero((before != after) & (before > 0) & (after > 0))
        where = np.stack(np.unravel_index(flat, before.shape), axis=1)
        low = np.minimum(before.ravel()[flat], after.ravel()[flat]).astype(np.int64)
        high = np.maximum(before.ravel()[flat], after.ravel()[flat]).astype(np.int64)
        key = low * 256 + high
        order = np.argsort(key, kind="stable")
        numbers, starts = np.unique(key[order], return_index=True)
        for number, (start, end) in zip(numbers.tolist(), pairwise([*starts, len(order)]), strict=True):
            group = order[start:end]
            chosen = random.permutation(group)[:_TRIED]
            inside = _undisturbed(labels, where[chosen], axis, number // 256, number % 256)
            place = where[chosen][inside] + 0.5 * (np.arange(3) == axis)
            found.setdefault((number // 256, number % 256), []).append(place)
    boundaries = {}
    for pair, places in found.items():
        every = random.permutation(np.concatenate(places))[:samples]
        if len(every):
            boundaries[pair] = (every * spacing)[:, ::-1]
    return boundaries


def _undisturbed(labels: NDArray[np.uint8], where: NDArray[np.int64], axis: int, low: int, high: int) -> Any:
    """Tell at which faces between voxels no third label, and no border of the volume, is near."""
    reach = [range(-_APART + 1, _APART + 1) if each == axis else range(-_APART, _APART + 1) for each in range(3)]
    offsets = np.stack(np.meshgrid(*reach, indexing="ij"), axis=-1).reshape(-1, 3)
    around = where[:, None, :] + offsets
    inside = ((around >= 0) & (around < labels.shape)).all(axis=(1, 2))
    around = around.clip(0, np.array(labels.shape) - 1)
    values = labels[around[..., 0], around[..., 1], around[..., 2]]
    return inside & ((values == low) | (values == high)).all(axis=1)
