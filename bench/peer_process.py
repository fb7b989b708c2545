"""Tools in child processes: asked job by job, with a time limit, and started again when they have died."""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "bench" / "peers"
PEER_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
OURS = "voxelmill"


def need_peers() -> None:
    """End with a clear line if the peers' environment is not there."""
    if not PEER_PYTHON.exists():
        print("the peers are not installed: run tools/setup peers and try again", file=sys.stderr)
        raise SystemExit(3)


class PeerProcess:
    """One tool in its own process."""

    def __init__(self, tool: str, seconds: float = 60, script: str = "worker.py") -> None:
        self._script = PEERS / script
        self._tool = tool
        self._seconds = seconds
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._said.close()

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        """Give a job and return its answer; a death or a hang is an answer too: outcome `crash`.

        What the tool has printed meanwhile comes back as `said`.
        """
        process = self._process = self._process or self._start()
        assert process.stdin is not None  # noqa: S101 - Popen was given pipes
        assert process.stdout is not None  # noqa: S101 - as above
        self._said.seek(0)
        self._said.truncate()
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            ready = selector.select(self._seconds)
        line = process.stdout.readline() if ready else b""
        self._said.seek(0)
        said = self._said.read().decode(errors="replace")
        if line:
            return {**json.loads(line), "said": said}
        self._end()
        if not ready:
            return {"outcome": "crash", "reason": f"no answer within {self._seconds:.0f} s", "said": said}
        last = (said.strip().splitlines() or [""])[-1]
        return {"outcome": "crash", "reason": f"the process ended ({process.returncode}) {last}", "said": said}

    def _start(self) -> subprocess.Popen[bytes]:
        python = sys.executable if self._tool == OURS else str(PEER_PYTHON)
        return subprocess.Popen(
            [python, str(self._script), self._tool], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said
        )

    def _end(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.communicate()
        self._process = None
