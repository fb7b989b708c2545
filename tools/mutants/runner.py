"""Many mutants through child processes, and what became of them by kind."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mutants import kinds, make
from mutants.verdict import TARGET, Task, Verdict
from voxelmill_shared.child import Child, ChildFailedError, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mutants.mutant import Mutant
    from mutants.seeds import Seeds

LIMITS = Limits(memory_bytes=3 << 30, seconds=60.0)
"""Of each mutant: less than half of what the product allows, which is 8 GiB of address space and half an hour."""
MOST_SECONDS = 10.0
"""Of a processor's time. What takes longer counts as hung; time by the clock tells of what else the machine does."""
PEAK_MIB = 1_024
"""The most resident memory that any of them may take, the libraries' own 150 MiB included."""


@dataclass(slots=True)
class Tally:
    """What became of the mutants of a kind. `faults` are the ones that must not be: number and what happened."""

    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[int, str]] = field(default_factory=list)
    crashed: int = 0
    hung: int = 0
    wrong: int = 0
    peak_mib: float = 0.0
    slowest: float = 0.0

    @property
    def count(self) -> int:
        """How many there were."""
        return self.outcomes.total() + self.crashed + self.hung

    def take(self, number: int, verdict: Verdict) -> None:
        """Count one that was answered."""
        if verdict.seconds > MOST_SECONDS:
            self.hung += 1
            self.faults.append((number, f"{verdict.seconds:.1f} s of a processor"))
        else:
            self.outcomes[verdict.outcome] += 1
        if verdict.reason:
            self.reasons[verdict.reason] += 1
        self.peak_mib = max(self.peak_mib, verdict.peak_mib)
        self.slowest = max(self.slowest, verdict.seconds)
        if verdict.peak_mib > PEAK_MIB:
            verdict.problems.append(f"{verdict.peak_mib:.0f} MiB of memory")
        self.wrong += bool(verdict.problems)
        self.faults += [(number, problem) for problem in verdict.problems]

    def fail(self, number: int, error: ChildFailedError) -> None:
        """Count one that ended or hung its process."""
        hung = error.error_class == "child-timeout"
        self.hung += hung
        self.crashed += not hung
        self.faults.append((number, f"{error.error_class}: {str(error).splitlines()[0][:300]}"))


def wanted(count: int, only: str = "") -> Iterator[tuple[str, int]]:
    """Say which mutants make a corpus of so many, of all kinds alike."""
    names = [name for name in kinds() if only in name]
    return ((names[n % len(names)], n // len(names)) for n in range(count))


async def run(
    seeds: Seeds,
    chosen: Iterable[tuple[str, int]],
    seed: int,
    scratch: Path,
    on_each: Callable[[int], None] = lambda _: None,
    keep: Path | None = None,
) -> dict[str, Tally]:
    """Put mutants through child processes, as many at a time as there are processors.

    Parameters
    ----------
    seeds, seed
        What they are made of.
    chosen
        Kind and number of each.
    scratch
        An empty folder.
    on_each
        Told how many are done.
    keep
        A folder for those that must not be, under their kind and number.
    """
    tallies: dict[str, Tally] = {}
    queue = iter(enumerate(chosen))
    done = 0

    async def work(child: Child) -> None:
        nonlocal done
        for n, (kind, number) in queue:
            mutant = make(seeds, kind, number, seed)
            tally = tallies.setdefault(kind, Tally())
            faults = len(tally.faults)
            await _one(child, mutant, scratch / str(n), tally, number)
            if keep is not None and len(tally.faults) > faults:
                (keep / f"{kind}-{number}-{mutant.name}".replace(" ", "_").replace(",", "")).write_bytes(mutant.data)
            done += 1
            on_each(done)

    # The child finds this package as its parent does.
    environment = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])}
    children = [Child(TARGET, LIMITS, environment) for _ in os.sched_getaffinity(0)]
    try:
        await asyncio.gather(*map(work, children))
    finally:
        for child in children:
            await child.close()
    for tally in tallies.values():
        tally.faults.sort()
    return {kind: tallies[kind] for kind in kinds() if kind in tallies}


async def _one(child: Child, mutant: Mutant, place: Path, tally: Tally, number: int) -> None:
    path = _laid_down(mutant, place)
    try:
        verdict = await child.call(Task(path, mutant.name, place / "work", mutant.beside, mutant.source))
    except ChildFailedError as error:
        tally.fail(number, error)
    else:
        tally.take(number, verdict)
    finally:
        shutil.rmtree(place)


def _laid_down(mutant: Mutant, place: Path) -> Path:
    place.mkdir()
    path = place / "object"
    path.write_bytes(mutant.data)
    return path
