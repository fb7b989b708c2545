"""Binary glTF 2.0 (GLB) scenes of all segments: one for every viewer, and one packed for the web.

Positions are 16-bit integers with an offset on each segment's node, normals are 8-bit (KHR_mesh_quantization), so a
triangle takes about a third of the bytes of floats. All segments use one lattice, whose step is a power of two, 1/128
mm for a body of up to 500 mm: two neighbours that share a vertex share it in the scene too, bit for bit, so no gap
opens between them. The web's scene has a lattice four times as wide and is packed by EXT_meshopt_compression.

glTF is in metres with Y up, looking towards +Z (glTF 2.0, 3.4): the root node turns the patient's left, posterior,
superior into +X, -Z, +Y. That is a rotation, not a mirror: left stays left.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from voxelmill_mesh.normals import vertex_normals
from voxelmill_mesh.parallel import in_parallel
from voxelmill_mesh.surface import Mesh
from voxelmill_mesh.writers.meshopt import encode_attributes, encode_triangles, octahedral
from voxelmill_mesh.writers.ordering import walk
from voxelmill_shared.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from voxelmill_mesh.writers.segment import ColouredMesh

LPS_TO_SCENE: tuple[tuple[float, ...], ...] = (
    (0.001, 0.0, 0.0, 0.0),
    (0.0, 0.0, 0.001, 0.0),
    (0.0, -0.001, 0.0, 0.0),
    (0.0, 0.0, 0.0, 1.0),
)
"""Row by row: patient LPS millimetres to glTF metres."""

_MAGIC, _JSON, _BIN = 0x46546C67, 0x4E4F534A, 0x004E4942
_BYTE, _UNSIGNED_SHORT, _UNSIGNED_INT = 5120, 5123, 5125
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_LARGEST = 65535
_QUANTISED = "KHR_mesh_quantization"
_PACKED = "EXT_meshopt_compression"

_FINEST = 2.0**-10
"""Millimetres; finer steps than a micrometre would only store noise."""

_WEB = 4
"""How much wider the web's lattice is: 1/32 mm for a body, so that a vertex moves by 27 um at most."""

_OPAQUE_ROUGHNESS, _GLASS_ROUGHNESS = 0.55, 0.2


def linear(value: int) -> float:
    """Return the linear value, 0 to 1, of an sRGB component, 0 to 255 (IEC 61966-2-1)."""
    share = value / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4


def lattice_step(segments: Iterable[ColouredMesh]) -> float:
    """Return the step in mm, a power of two, with which each segment's longest side takes 65,534 steps at most."""
    longest = max(float(np.ptp(segment.mesh.vertices, axis=0).max()) for segment in segments)
    return max(_FINEST, 2.0 ** math.ceil(math.log2(longest / (_LARGEST - 1)))) if longest > 0 else _FINEST


@dataclass(frozen=True, slots=True)
class _Box:
    """Where a segment lies in the lattice: its lowest corner and its size, in steps."""

    low: NDArray[np.int64]
    size: NDArray[np.int64]

    @classmethod
    def of(cls, mesh: Mesh, step: float) -> _Box:
        low, high = (np.rint(end(mesh.vertices, axis=0) / step).astype(np.int64) for end in (np.min, np.max))
        return cls(low, high - low)

    def positions(self, mesh: Mesh, step: float) -> NDArray[np.uint16]:
        """Return steps from the lowest corner, (n, 4); the fourth fills up to the alignment of four bytes."""
        positions = np.zeros((len(mesh.vertices), 4), "<u2")
        positions[:, :3] = np.rint(mesh.vertices / np.float32(step)) - self.low.astype(np.float32)
        return positions


def _small(mesh: Mesh) -> bool:
    """Whether two bytes hold an index; 65535 itself is none: it is kept for primitive restart (glTF 2.0, 3.7.2.1)."""
    return len(mesh.vertices) <= _LARGEST


def _material(segment: ColouredMesh) -> dict[str, Any]:
    glass = segment.opacity < 1
    material: dict[str, Any] = {
        "name": segment.name,
        "pbrMetallicRoughness": {
            "baseColorFactor": [*(round(linear(value), 6) for value in segment.rgb), segment.opacity],
            "metallicFactor": 0,
            "roughnessFactor": _GLASS_ROUGHNESS if glass else _OPAQUE_ROUGHNESS,
        },
    }
    if glass:
        # Not KHR_materials_transmission: glass behind such glass is not drawn, so a skin would hide the lungs.
        material["alphaMode"] = "BLEND"
    return material


@dataclass(slots=True)
class _Document:
    """A glTF document in the making: nodes, meshes and accessors of segments, in their order."""

    segments: Sequence[ColouredMesh]
    step: float
    boxes: list[_Box] = field(default_factory=list)
    views: list[dict[str, Any]] = field(default_factory=list)
    accessors: list[dict[str, Any]] = field(default_factory=list)
    meshes: list[dict[str, Any]] = field(default_factory=list)
    nodes: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for number, segment in enumerate(self.segments):
            mesh = segment.mesh
            box = _Box.of(mesh, self.step)
            self.boxes.append(box)
            positions = {
                "componentType": _UNSIGNED_SHORT,
                "count": len(mesh.vertices),
                "type": "VEC3",
                "min": [0, 0, 0],
                "max": box.size.tolist(),
            }
            normals = {"componentType": _BYTE, "normalized": True, "count": len(mesh.vertices), "type": "VEC3"}
            kind = _UNSIGNED_SHORT if _small(mesh) else _UNSIGNED_INT
            indices = {"componentType": kind, "count": mesh.faces.size, "type": "SCALAR"}
            first = len(self.accessors)
            for place, accessor in enumerate((positions, normals, indices)):
                self.accessors.append({"bufferView": first + place, **accessor})
            attributes = {"POSITION": first, "NORMAL": first + 1}
            primitive = {"attributes": attributes, "indices": first + 2, "material": number}
            self.meshes.append({"name": segment.name, "primitives": [primitive]})
            translation = (box.low * self.step).tolist()
            self.nodes.append(
                {"name": segment.name, "mesh": number, "translation": translation, "scale": [self.step] * 3}
            )

    def sizes(self) -> Iterable[tuple[int, int, int | None, int]]:
        """Give for each view, unpacked: elements, bytes of one, stride, target."""
        for segment in self.segments:
            count = len(segment.mesh.vertices)
            yield count, 8, 8, _ARRAY_BUFFER
            yield count, 4, 4, _ARRAY_BUFFER
            yield segment.mesh.faces.size, 2 if _small(segment.mesh) else 4, None, _ELEMENT_ARRAY_BUFFER

    def write(self, path: Path, buffers: list[dict[str, Any]], extensions: list[str], chunk: Iterable[Any]) -> None:
        """Write the frame and the binary chunk, whose parts' length is the first buffer's (glTF 2.0, 4.4)."""
        columns = [row[column] for column in range(4) for row in LPS_TO_SCENE]
        root = {"name": "patient", "children": list(range(len(self.nodes))), "matrix": columns}
        document = {
            "asset": {"version": "2.0", "generator": f"Voxelmill {__version__}"},
            "extensionsUsed": extensions,
            "extensionsRequired": extensions,
            "scene": 0,
            "scenes": [{"nodes": [len(self.nodes)]}],
            "nodes": [*self.nodes, root],
            "meshes": self.meshes,
            "materials": [_material(segment) for segment in self.segments],
            "accessors": self.accessors,
            "bufferViews": self.views,
            "buffers": buffers,
        }
        text = json.dumps(document, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        length = buffers[0]["byteLength"]
        with path.open("wb") as file:
            file.write(struct.pack("<III", _MAGIC, 2, 12 + 8 + len(text) + 8 + length))
            file.write(struct.pack("<II", len(text), _JSON) + text)
            file.write(struct.pack("<II", length, _BIN))
            for part in chunk:
                file.write(part)
                file.write(bytes(-memoryview(part).nbytes % 4))


def _nearest_last(segments: Iterable[ColouredMesh]) -> list[ColouredMesh]:
    """Put what is not opaque after what is, the clearest last: the order in which viewers draw it best."""
    return sorted(segments, key=lambda segment: -segment.opacity)


def _arrays(document: _Document) -> Iterable[Any]:
    """Give the arrays of the scene, one segment after the other, made when they are asked for."""
    for segment, box in zip(document.segments, document.boxes, strict=True):
        mesh = segment.mesh
        yield box.positions(mesh, document.step).data
        normals = np.zeros((len(mesh.vertices), 4), np.int8)
        normals[:, :3] = np.rint(vertex_normals(mesh) * 127)
        yield normals.data
        yield mesh.faces.astype("<u2" if _small(mesh) else "<u4").data


def write_glb(segments: Iterable[ColouredMesh], path: Path) -> None:
    """Write a scene with one named node, mesh and material for each segment; each has a face at least.

    What is not opaque has `alphaMode` BLEND and stands after what is.
    """
    ordered = _nearest_last(segments)
    document = _Document(ordered, lattice_step(ordered))
    end = 0
    for count, size, stride, target in document.sizes():
        view = {"buffer": 0, "byteOffset": end, "byteLength": count * size, "target": target}
        document.views.append(view if stride is None else {**view, "byteStride": stride})
        end += count * size + -(count * size) % 4
    document.write(path, [{"byteLength": end}], [_QUANTISED], _arrays(document))


def _walked(mesh: Mesh) -> Mesh:
    faces, source = walk(mesh.faces, len(mesh.vertices))
    return Mesh(mesh.vertices[source], faces)


def _pack(mesh: Mesh, box: _Box, step: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    return (
        encode_attributes(box.positions(mesh, step)),
        encode_attributes(octahedral(vertex_normals(mesh))),
        encode_triangles(mesh.faces),
    )


def write_web_glb(segments: Iterable[ColouredMesh], path: Path) -> None:
    """Write the same scene packed, a third of the bytes, for viewers that know EXT_meshopt_compression (three.js).

    The unpacked arrays have no bytes: the second buffer only gives them an address, as the extension asks for where it
    is required. A vertex that no face uses is left out.
    """
    given = _nearest_last(segments)
    with in_parallel() as run:
        meshes = run(_walked, ((segment.mesh,) for segment in given))
        ordered = [replace(segment, mesh=mesh) for segment, mesh in zip(given, meshes, strict=True)]
        document = _Document(ordered, lattice_step(ordered) * _WEB)
        packings = run(_pack, ((mesh, box, document.step) for mesh, box in zip(meshes, document.boxes, strict=True)))
    streams = [stream for packing in packings for stream in packing]
    end = 0
    unpacked = 0
    for number, (stream, (count, size, stride, target)) in enumerate(zip(streams, document.sizes(), strict=True)):
        packed: dict[str, Any] = {"buffer": 0, "byteOffset": end, "byteLength": len(stream), "byteStride": size}
        packed |= {"count": count, "mode": "TRIANGLES" if stride is None else "ATTRIBUTES"}
        if number % 3 == 1:
            packed["filter"] = "OCTAHEDRAL"
        view = {"buffer": 1, "byteOffset": unpacked, "byteLength": count * size, "target": target}
        view |= {} if stride is None else {"byteStride": stride}
        document.views.append({**view, "extensions": {_PACKED: packed}})
        end += len(stream) + -len(stream) % 4
        unpacked += count * size + -(count * size) % 4
    buffers: list[dict[str, Any]] = [
        {"byteLength": end},
        {"byteLength": unpacked, "extensions": {_PACKED: {"fallback": True}}},
    ]
    document.write(path, buffers, [_QUANTISED, _PACKED], streams)
