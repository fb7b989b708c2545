"""Running `voxelmill` as a user does, and looking at what it leaves."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from e2e.forking import ANSWER

VOXELMILL = [sys.executable, "-m", "voxelmill_cli"]
FORKING = Path(__file__).with_name("forking.py")


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


def voxelmill(
    *arguments: object, cwd: Path | None = None, seconds: float = 240, stdout: int | None = None, **environment: str
) -> Ended:
    """Run the command to its end; no traceback may ever be seen. `stdout` is a descriptor that takes what it says.

    It is a process of its own, but one that need not import anything (see `forking`): that is most of what a command
    costs. Where the environment is the interpreter's business too, an interpreter is started.
    """
    words = [*map(str, arguments)]
    variables = {**os.environ, "PYTHONWARNINGS": "ignore", **environment}
    if "COVERAGE_PROCESS_CONFIG" in variables or any(name.startswith("PYTHON") for name in environment):
        done = subprocess.run(
            [*VOXELMILL, *words],
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
            env=variables,
            check=False,
        )
        ended = Ended(done.returncode, done.stdout or "", done.stderr)
    else:
        ended = _forks().run(words, Path.cwd() / (cwd or ""), variables, seconds, stdout)
    assert "Traceback" not in ended.err, ended.err
    return ended


class Forks:
    """The process that has imported the command."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(FORKING), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONWARNINGS": "ignore"},
            )

    def close(self) -> None:
        """End it."""
        self._requests.close()
        self._process.wait()

    def run(
        self, arguments: list[str], folder: Path, environment: dict[str, str], seconds: float, stdout: int | None
    ) -> Ended:
        """Run the command to its end.

        Raises
        ------
        TimeoutError
            If it takes longer than that; it is killed.
        """
        request = {"arguments": arguments, "folder": str(folder), "environment": environment}
        with _output("out") as out, _output("err") as err:
            takers = [out.fileno() if stdout is None else stdout, err.fileno()]
            socket.send_fds(self._requests, [json.dumps(request).encode()], takers)
            process = self._answer()
            self._requests.settimeout(seconds)
            try:
                code = self._answer()
            except TimeoutError:
                os.kill(process, signal.SIGKILL)
                self._requests.settimeout(None)
                self._answer()
                raise
            return Ended(code, _said(out), _said(err))

    def _answer(self) -> int:
        body = self._requests.recv(ANSWER.size)
        assert body, "the process that forks has ended: see what it said on standard error"
        return int(ANSWER.unpack(body)[0])


@cache
def _forks() -> Forks:
    forks = Forks()
    atexit.register(forks.close)
    return forks


def _output(name: str) -> BinaryIO:
    return os.fdopen(os.memfd_create(name), "r+b")


def _said(output: BinaryIO) -> str:
    output.seek(0)
    return output.read().decode()


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
