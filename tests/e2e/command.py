"""Running `voxelmill` as a user does, and looking at what it leaves."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

VOXELMILL = [sys.executable, "-m", "voxelmill_cli"]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What `--json` printed: the whole of standard output is one document."""
        return json.loads(self.out)


def voxelmill(*arguments: object, cwd: Path | None = None, seconds: float = 240, **environment: str) -> Ended:
    """Run the command to its end; no traceback may ever be seen."""
    done = subprocess.run(
        [*VOXELMILL, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=seconds,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONWARNINGS": "ignore", **environment},
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ended(done.returncode, done.stdout, done.stderr)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 by relative name of every file under a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def check_receipt(folder: Path) -> dict[str, Any]:
    """Hold an exported receipt to the files beside it; return it."""
    receipt = json.loads((folder / "receipt.json").read_text())
    found = digests(folder)
    assert {a["name"]: a["sha256"] for a in receipt["artefacts"]} == {
        name: digest for name, digest in found.items() if name != "receipt.json"
    }
    for artefact in receipt["artefacts"]:
        assert (folder / artefact["name"]).stat().st_size == artefact["size"]
    return receipt
