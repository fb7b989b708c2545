"""A plan: numbered steps, what of them stands already, and doing the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from voxelmill_cli.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from voxelmill_cli.bucket.target import StoreKind


class StepState(StrEnum):
    """What is to be done about a step."""

    STANDS = "stands"
    CREATE = "will be created"
    CHANGE = "will be changed"
    BY_HAND = "yours to do"
    LACKING = "this store has none"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that must stand.

    Parameters
    ----------
    title
        What it is.
    state
        How it is now.
    detail
        What it will be, or what was found.
    act
        Makes it so. It may return a sentence: then the store turned out not to know such a thing. None if there is
        nothing to do.
    """

    title: str
    state: StepState
    detail: str = ""
    act: Callable[[], str | None] | None = None

    def line(self, number: int) -> str:
        """Say it in one line."""
        return f"{number}. {self.title}: {self.state}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True, slots=True)
class ConnectionPlan:
    """What connecting a bucket takes.

    Parameters
    ----------
    kind
        The server.
    steps
        In the order in which they are done.
    variables
        Gives what ingest must be told, by variable; some of it is known only when the steps are done.
    notes
        Lines that the user should read.
    """

    kind: StoreKind
    steps: Sequence[Step]
    variables: Callable[[], dict[str, str]]
    notes: Sequence[str] = ()

    @property
    def changes(self) -> bool:
        """Whether anything is to be done."""
        return any(step.act for step in self.steps)

    def lines(self) -> list[str]:
        """Say the plan."""
        return [step.line(number) for number, step in enumerate(self.steps, start=1)]


def kept(detail: str, others: int, word: str) -> str:
    """Say beside what is done that the entries of others stay."""
    if not others:
        return detail
    plural = word[:-1] + "ies" if word.endswith("y") else f"{word}s"
    return f"{detail}; {others} other {word if others == 1 else plural} kept"


@dataclass(slots=True)
class Progress:
    """What has been done of a plan."""

    done: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def carry_out(plan: ConnectionPlan, told: Callable[[str], Any]) -> Progress:
    """Do what a plan says, one step after the other; what stands is left alone.

    Parameters
    ----------
    told
        Takes a line for each step that is done.

    Raises
    ------
    CommandError
        If a step fails: which are done, which is not, and why.
    """
    progress = Progress()
    for number, step in enumerate(plan.steps, start=1):
        if step.act is None:
            continue
        try:
            lacking = step.act()
        except CommandError as error:
            raise CommandError(_partly(plan, progress, number, str(error)), error.exit_code) from error
        if lacking:
            progress.warnings.append(lacking)
            told(f"{number}. {lacking}")
        else:
            progress.done.append(number)
            told(f"{number}. {step.title}: done")
    return progress


def _partly(plan: ConnectionPlan, progress: Progress, failed: int, reason: str) -> str:
    waiting = [number for number, step in enumerate(plan.steps, start=1) if step.act and number > failed]
    parts = [
        f"step {failed} failed: {reason}",
        f"done before it: {_numbers(progress.done)}",
        f"not begun: {_numbers(waiting)}",
        "run it again when that is mended: what is done is left alone",
    ]
    return "; ".join(parts)


def _numbers(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"
