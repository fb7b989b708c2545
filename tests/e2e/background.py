"""A `voxelmill` that runs beside the test: what it says is read line by line, and signals are sent to it."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import pytest

from e2e.command import forks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.command import Fork

END_SECONDS = 120


@dataclass
class Background:
    """The process, and where its lines come from."""

    fork: Fork
    stdout: TextIO
    code: int | None = None
    errors: str = ""

    def line_with(self, words: str) -> str:
        """Read what it says until a line holds `words`; return that line."""
        said = []
        for line in self.stdout:
            said.append(line)
            if words in line:
                return line
        self.end()
        pytest.fail(f"ended without saying {words!r}: {said} {self.errors}")

    def end(self, number: signal.Signals | None = None) -> int:
        """Wait for its end, after sending it that signal if one is given; return the exit code."""
        if self.code is None:
            if number is not None:
                self.fork.send_signal(number)
            ended = self.fork.end(END_SECONDS)
            self.code, self.errors = ended.code, ended.err
            assert "Traceback" not in ended.err, ended.err
        return self.code


@contextmanager
def background(*arguments: object, cwd: Path | None = None, **environment: str) -> Iterator[Background]:
    """Start the command, as `voxelmill` does; kill it in the end if it still runs."""
    variables = {**os.environ, "PYTHONWARNINGS": "ignore", **environment}
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as stdout:
        try:
            fork = forks().start(
                "voxelmill_cli.__main__",
                *map(str, arguments),
                environment=variables,
                folder=Path.cwd() / (cwd or ""),
                stdout=writing,
            )
        finally:
            os.close(writing)
        process = Background(fork, stdout)
        try:
            yield process
        finally:
            process.end(signal.SIGKILL)
