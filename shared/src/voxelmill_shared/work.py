"""What the domain half of a stage takes and gives: files in, files out, in a child process that knows no broker."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from voxelmill_shared.errors import VoxelmillError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file that the work has written. `name` is its key within the job, `thumbnails/axial.webp`."""

    name: str
    path: Path
    media_type: str


@dataclass(frozen=True, slots=True)
class WorkResult:
    """What came out. `seconds` are wall times by step; `measurements` is JSON data for the stage's record."""

    files: tuple[OutputFile, ...]
    seconds: dict[str, float] = field(default_factory=dict)
    measurements: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class StepClock:
    """Wall times by step; a step ends where the next begins. `report` is told the name of each as it begins."""

    report: Callable[[str], None]
    seconds: dict[str, float] = field(default_factory=dict)
    _step: str = ""
    _since: float = 0.0

    def begin(self, step: str) -> None:
        """Note that a step begins, and tell whoever watches."""
        self.end()
        self._step, self._since = step, time.perf_counter()
        self.report(step)

    def end(self) -> None:
        """Note that the last step has ended."""
        if self._step:
            self.seconds[self._step] = round(time.perf_counter() - self._since, 4)
        self._step = ""


class UnsupportedSeriesError(VoxelmillError):
    """The series can never be worked on: its data are contradictory or of a kind that is refused.

    `code` is a word of the documented catalogue (`missing-slices`), `reason` one line for people.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class NotApplicableError(VoxelmillError):
    """The work has no meaning for this series (a CT model and an MR series): the stage is skipped, nothing failed."""
