"""One binary glTF 2.0 (GLB) scene of all segments, quantised.

Positions are 16-bit integers with a scale and an offset on each segment's node, normals are 8-bit
(KHR_mesh_quantization), so a triangle takes about a third of the bytes of floats; steps are 1/65535 of the segment's
longest side, 6 um for a body of 400 mm. glTF is in metres with Y up, looking towards +Z (glTF 2.0, 3.4): the root node
turns the patient's left, posterior, superior into +X, -Z, +Y. That is a rotation, not a mirror: left stays left.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from voxelmill_mesh.measurement import vertex_normals
from voxelmill_shared.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
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
_STEPS = 65535
_EXTENSION = "KHR_mesh_quantization"


def linear(value: int) -> float:
    """Return the linear value, 0 to 1, of an sRGB component, 0 to 255 (IEC 61966-2-1)."""
    share = value / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4


class _Buffer:
    """The binary chunk in the making, with its views and accessors."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.length = 0
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def add(self, data: NDArray[Any], target: int, stride: int | None, accessor: dict[str, Any]) -> int:
        """Append an array, aligned to four bytes, and return its accessor's number."""
        body = data.tobytes()
        view: dict[str, Any] = {"buffer": 0, "byteOffset": self.length, "byteLength": len(body), "target": target}
        if stride is not None:
            view["byteStride"] = stride
        self.views.append(view)
        padded = body + bytes(-len(body) % 4)
        self.parts.append(padded)
        self.length += len(padded)
        self.accessors.append({"bufferView": len(self.views) - 1, **accessor})
        return len(self.accessors) - 1


def _material(segment: ColouredMesh) -> dict[str, Any]:
    material: dict[str, Any] = {
        "name": segment.name,
        "pbrMetallicRoughness": {
            "baseColorFactor": [*(round(linear(value), 6) for value in segment.rgb), segment.opacity],
            "metallicFactor": 0,
            "roughnessFactor": 0.6,
        },
    }
    if segment.opacity < 1:
        material["alphaMode"] = "BLEND"
    return material


def _primitive(segment: ColouredMesh, material: int, buffer: _Buffer) -> tuple[dict[str, Any], dict[str, Any]]:
    """Append a segment's arrays; return its primitive and the placing (offset and scale) of its node."""
    mesh = segment.mesh
    low = mesh.vertices.min(axis=0).astype(np.float64)
    step = float((mesh.vertices.max(axis=0) - low).max()) / _STEPS
    positions = np.zeros((len(mesh.vertices), 4), "<u2")  # the fourth fills up to the alignment of four bytes
    positions[:, :3] = np.rint((mesh.vertices - low) / step)
    normals = np.zeros((len(mesh.vertices), 4), "i1")
    normals[:, :3] = np.rint(vertex_normals(mesh) * 127)
    small = len(mesh.vertices) <= _STEPS  # 65535 itself is no index: it is kept for primitive restart
    indices = mesh.faces.astype("<u2" if small else "<u4")
    attributes = {
        "POSITION": buffer.add(
            positions,
            _ARRAY_BUFFER,
            8,
            {
                "componentType": _UNSIGNED_SHORT,
                "count": len(positions),
                "type": "VEC3",
                "min": positions[:, :3].min(axis=0).tolist(),
                "max": positions[:, :3].max(axis=0).tolist(),
            },
        ),
        "NORMAL": buffer.add(
            normals,
            _ARRAY_BUFFER,
            4,
            {"componentType": _BYTE, "normalized": True, "count": len(normals), "type": "VEC3"},
        ),
    }
    accessor = {"componentType": _UNSIGNED_SHORT if small else _UNSIGNED_INT, "count": indices.size, "type": "SCALAR"}
    primitive = {
        "attributes": attributes,
        "indices": buffer.add(indices, _ELEMENT_ARRAY_BUFFER, None, accessor),
        "material": material,
    }
    return primitive, {"translation": low.tolist(), "scale": [step] * 3}


def write_glb(segments: Sequence[ColouredMesh], path: Path) -> None:
    """Write a scene with one named node, mesh and material for each segment.

    What is not opaque has `alphaMode` BLEND and stands after what is, the order in which viewers draw it best.
    """
    buffer = _Buffer()
    meshes: list[dict[str, Any]] = []
    nodes: list[dict[str, Any]] = []
    ordered = sorted(segments, key=lambda segment: -segment.opacity)
    for number, segment in enumerate(ordered):
        primitive, placing = _primitive(segment, number, buffer)
        meshes.append({"name": segment.name, "primitives": [primitive]})
        nodes.append({"name": segment.name, "mesh": number, **placing})
    columns = [row[column] for column in range(4) for row in LPS_TO_SCENE]
    nodes.append({"name": "patient", "children": list(range(len(ordered))), "matrix": columns})
    document = {
        "asset": {"version": "2.0", "generator": f"Voxelmill {__version__}"},
        "extensionsUsed": [_EXTENSION],
        "extensionsRequired": [_EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [len(ordered)]}],
        "nodes": nodes,
        "meshes": meshes,
        "materials": [_material(segment) for segment in ordered],
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": buffer.length}],
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    with path.open("wb") as file:
        file.write(struct.pack("<III", _MAGIC, 2, 12 + 8 + len(text) + 8 + buffer.length))
        file.write(struct.pack("<II", len(text), _JSON) + text)
        file.write(struct.pack("<II", buffer.length, _BIN))
        file.writelines(buffer.parts)
