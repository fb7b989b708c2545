"""Running `voxelmill` as a user does, and looking at what it leaves."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from e2e.forking import ANSWER

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        fork = forks().start(
            "voxelmill_cli.__main__", *words, environment=variables, folder=Path.cwd() / (cwd or ""), stdout=stdout
        )
        ended = fork.end(seconds)
    assert "Traceback" not in ended.err, ended.err
    return ended


class Fork:
    """A process that is a fork; what it says is kept, and `stdout` is a descriptor that takes it instead."""

    def __init__(
        self,
        requests: socket.socket,
        module: str,
        arguments: list[str],
        folder: Path,
        environment: Mapping[str, str],
        stdout: int | None = None,
    ) -> None:
        self._out, self._err = _output("out"), _output("err")
        self._answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = {"module": module, "arguments": arguments, "folder": str(folder), "environment": dict(environment)}
        with theirs:
            takers = [theirs.fileno(), self._out.fileno() if stdout is None else stdout, self._err.fileno()]
            socket.send_fds(requests, [json.dumps(request).encode()], takers)
        self.pid = self._answer()
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code (of a signal: its number, negative), None while it runs."""
        if self._code is None and select.select([self._answers], [], [], 0)[0]:
            self._code = self._answer()
        return self._code

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended since
                os.kill(self.pid, number)

    def end(self, seconds: float) -> Ended:
        """Wait for the end, and tell it.

        Raises
        ------
        TimeoutError
            If it takes longer than that; it is killed.
        """
        in_time = self._code is not None or select.select([self._answers], [], [], seconds)[0]
        if not in_time:
            os.kill(self.pid, signal.SIGKILL)
        if self._code is None:
            self._code = self._answer()
        with self._out, self._err, self._answers:
            if not in_time:
                raise TimeoutError(f"killed after {seconds:g} s; it said: {_said(self._out)} {_said(self._err)}")
            return Ended(self._code, _said(self._out), _said(self._err))

    def _answer(self) -> int:
        body = self._answers.recv(ANSWER.size)
        assert body, "the process that forks has ended: see what it said on standard error"
        return int(ANSWER.unpack(body)[0])


class Forks:
    """The process that has imported the command and the services."""

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

    def start(
        self,
        module: str,
        *arguments: str,
        environment: Mapping[str, str],
        folder: Path | None = None,
        stdout: int | None = None,
    ) -> Fork:
        """Start what `python -m` of that module starts."""
        return Fork(self._requests, module, [*arguments], folder or Path.cwd(), environment, stdout)


@cache
def forks() -> Forks:
    """Give this process's own."""
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
