"""Programs of the web open the files: three.js's loaders, niivue, Khronos's glTF validator."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import missing
from unit.mesh.solids import as_trimesh, pair
from voxelmill_mesh.writers.files import write_meshes
from voxelmill_shared.plan import MeshFormat

PROGRAMS = Path(__file__).parents[3] / "bench" / "mesh_programs"


@pytest.fixture
def node() -> str:
    """Node.js, with the programs beside it."""
    found = shutil.which("node")
    if found is None:
        missing("Node.js is not installed (tools/setup servers in CI, or your system's nodejs and npm)")
    if not (PROGRAMS / "node_modules").is_dir():
        missing("the programs of the web are not there (tools/setup servers, or npm ci in bench/mesh_programs)")
    return str(found)


def test_programs_of_the_web_find_what_was_written(node: str, tmp_path: Path) -> None:
    """Triangles, volume and colour of each segment in each format; the validator has neither errors nor warnings."""
    segments = pair()
    write_meshes(segments, tuple(MeshFormat), tmp_path, {"segments": {}})
    answers = subprocess.run([node, PROGRAMS / "read.mjs", tmp_path], check=True, capture_output=True, text=True).stdout
    lines = [json.loads(line) for line in answers.splitlines() if line.startswith("{")]
    assert {line["program"] for line in lines} >= {"gltf-validator", "niivue", "three.js GLTFLoader"}
    for line in lines:
        if line["program"] == "gltf-validator":
            assert line["messages"] == []
            continue
        for name, (triangles, volume, coloured) in line["segments"].items():
            mesh = next(segment.mesh for segment in segments if segment.name == name)
            assert triangles == len(mesh.faces)
            assert volume == pytest.approx(as_trimesh(mesh).volume / 1000, rel=2e-3)
            assert coloured
