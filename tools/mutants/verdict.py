"""What a child is asked, and what it answers; without the libraries that it needs for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

TARGET = "mutants.probe:probe"
_LONGEST_LINE = 2_000


@dataclass(frozen=True, slots=True)
class Task:
    """A file under its name, the sound files of its series, what it was made of, and a folder for what is written."""

    path: Path
    key: str
    folder: Path
    beside: tuple[Path, ...] = ()
    source: Path | None = None


@dataclass(slots=True)
class Verdict:
    """What became of it.

    Attributes
    ----------
    outcome
        `rejected`, `warned` or `accepted`.
    reason
        The code of the catalogue, of what was rejected.
    problems
        What must not be: reasons that are no line, voxels in a wrong place without a word.
    peak_mib
        The most resident memory of the child since the call began.
    seconds
        Time of a processor.
    """

    outcome: str = "accepted"
    reason: str = ""
    problems: list[str] = field(default_factory=list)
    peak_mib: float = 0.0
    seconds: float = 0.0

    def say(self, lines: tuple[str, ...]) -> None:
        """Take warnings."""
        if lines and self.outcome == "accepted":
            self.outcome = "warned"
        for line in lines:
            self.line(line)

    def reject(self, code: str, line: str) -> None:
        """Take a reason."""
        self.outcome, self.reason = "rejected", code
        self.line(line)

    def line(self, line: str) -> None:
        """See that something is one line for people."""
        if not line.strip() or not line.isprintable() or len(line) > _LONGEST_LINE:
            self.problems.append(f"no line for people: {line[:200]!r} ({len(line)} characters)")
