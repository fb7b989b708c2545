"""Do programs that are not ours open every mesh file, and find in it what was written?

    python bench/open_meshes.py RESULTS [--tools FOLDER]

RESULTS is a folder with `meshes.zip`, as `voxelmill run … --format stl,ply,obj,glb,mz3` leaves it. VTK, MeshLab and
trimesh read what is in the zip, and under Node three.js, niivue and Khronos's glTF validator. They are installed into
FOLDER and kept there; without it into a folder that is removed in the end (about 600 MB). Of every segment the
triangles must be those of `meshes.json`, and the volume must differ by half a percent at most; of a scene the validator
must have neither errors nor warnings. Exit code 1 if not.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from report import Aim, end, table

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = Path(__file__).parent / "mesh_programs"
TOLERANCE = 0.005
SMALL_ML = 0.002
"""Of a part this small the web's lattice, 1/32 mm, changes the volume by more than half a percent."""


def install(tools: Path) -> None:
    """Install the programs, unless they are there."""
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("bench/open_meshes.py: npm is not installed; install Node.js and try again")
    if not (tools / "python").exists():
        venv.create(tools / "python", with_pip=True)
        pip = [tools / "python/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", PROGRAMS / "requirements.txt"], check=True)
    for name in ("package.json", "package-lock.json", "read.mjs"):
        shutil.copy(PROGRAMS / name, tools)
    if not (tools / "node_modules").exists():
        subprocess.run([npm, "ci", "--silent", "--no-audit", "--no-fund"], check=True, cwd=tools)


def read(tools: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """Give what each program says of each file."""
    for command in (
        [tools / "python/bin/python", PROGRAMS / "read.py", folder],
        [shutil.which("node"), tools / "read.mjs", folder],
    ):
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        yield from (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))


def faults(answer: dict[str, Any], written: dict[str, Any]) -> list[str]:
    """Return what a program found otherwise than it was written."""
    if "messages" in answer:
        return list(answer["messages"])
    found = answer["segments"]
    if answer["file"].endswith(".glb") and answer["program"] == "MeshLab":  # it knows no nodes, so no names
        triangles = Counter(each[0] for each in found.values())
        return [] if triangles == Counter(each["triangles"] for each in written.values()) else ["other triangles"]
    said = []
    if answer["file"].endswith(".glb") and set(found) != set(written):
        said.append("other segments")
    for name, (triangles, volume, coloured) in found.items():
        expected = written[name]
        if triangles != expected["triangles"]:
            said.append(f"{name}: {triangles} triangles, not {expected['triangles']}")
        if abs(volume - expected["volume_ml"]) > TOLERANCE * expected["volume_ml"] + SMALL_ML:
            said.append(f"{name}: {volume:.4f} mL, not {expected['volume_ml']}")
        if not coloured:
            said.append(f"{name}: no colour")
    return said


def main() -> None:
    """Open all files and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="a folder with meshes.zip")
    parser.add_argument("--tools", type=Path, help="where the programs are, or are put and kept")
    arguments = parser.parse_args()
    if not (arguments.results / "meshes.zip").is_file():
        parser.error(f"{arguments.results}: no meshes.zip; give a folder of results")
    with tempfile.TemporaryDirectory(prefix="voxelmill-open-") as scratch:
        tools = arguments.tools or Path(scratch) / "tools"
        tools.mkdir(parents=True, exist_ok=True)
        install(tools.resolve())
        folder = Path(scratch) / "meshes"
        with zipfile.ZipFile(arguments.results / "meshes.zip") as archive:
            archive.extractall(folder)
        written = json.loads((folder / "meshes.json").read_bytes())["segments"]
        files: Counter[tuple[str, str]] = Counter()
        wrong: dict[tuple[str, str], list[str]] = {}
        for answer in read(tools.resolve(), folder):
            kind = answer["file"] if answer["file"].endswith(".glb") else Path(answer["file"]).suffix
            files[answer["program"], kind] += 1
            wrong.setdefault((answer["program"], kind), []).extend(faults(answer, written))
    rows = [
        [program, kind, str(count), "as written" if not wrong[program, kind] else "; ".join(wrong[program, kind][:3])]
        for (program, kind), count in sorted(files.items())
    ]
    table(["program", "files", "opened", "found"], rows)
    count = sum(map(len, wrong.values()))
    end("open-meshes", {"faults": Aim(count, 0, at_most=True)}, {"files": files.total(), "segments": len(written)})
    sys.exit(1 if count else 0)


if __name__ == "__main__":
    main()
