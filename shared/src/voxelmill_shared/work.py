"""What the domain half of a stage takes and gives: files in, files out, in a child process that knows no broker."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from voxelmill_shared.errors import TransientError, VoxelmillError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a piece of work is: `done` of `total` parts (tiles, slices) of a step; 0 and 0 if none are counted."""

    step: str
    done: int = 0
    total: int = 0


Report: TypeAlias = "Callable[[Progress | str], None]"
"""Told how far the work is; a string is the name of a step that begins.

It may raise `WorkCancelledError`: then nobody wants the result any more, and whoever works lets that error through.
"""


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

    report: Report
    seconds: dict[str, float] = field(default_factory=dict)
    _step: str = ""
    _since: float = 0.0

    def begin(self, step: str) -> None:
        """Note that a step begins, and tell whoever watches."""
        self.end()
        self._step, self._since = step, time.perf_counter()
        self.report(step)

    def tell(self, progress: Progress | str) -> None:
        """Be the `report` of a domain function: a new step begins, and of the step that goes on the count is told."""
        step = progress if isinstance(progress, str) else progress.step
        if step != self._step:
            self.begin(step)
        if isinstance(progress, Progress) and progress.total:
            self.report(progress)

    def end(self) -> None:
        """Note that the last step has ended. A step that comes again (once for each network) adds to its time."""
        if self._step:
            spent = time.perf_counter() - self._since
            self.seconds[self._step] = round(self.seconds.get(self._step, 0.0) + spent, 4)
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


class WorkCancelledError(VoxelmillError):
    """The work was stopped between two of its parts, because nobody wants its result any more."""


class DeviceMemoryError(TransientError):
    """The device has not enough memory free for this volume, whatever was tried; what else runs there may end."""

    error_class = "device-out-of-memory"
