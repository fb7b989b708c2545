"""One run: put objects, apply one fault at a seeded moment, wait until all has come to its end, hold it to the invariant."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Protocol

from faults.invariant import Judge, Verdict
from faults.made import Work, make_work
from faults.store import INBOX, RESULTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from faults.installation import Installation

USUAL_SECONDS = 4.0
"""About how long the objects of a run take without a fault: moments are drawn from this time."""
SETTLE_SECONDS = 240.0
QUIET_LOOKS = 3
LOOK_SECONDS = 0.15


@dataclass(slots=True)
class Run:
    """What a fault may use. `outage` is how long whatever is out of reach stays so, in seconds."""

    installation: Installation
    work: Work
    random: Random
    outage: float
    notes: list[str] = field(default_factory=list)

    def wait_until(self, condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
        """Return when something is so.

        Raises
        ------
        TimeoutError
            If it does not become so.
        """
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                raise TimeoutError(f"{what}: not so after {seconds:g} s")
            time.sleep(0.02)

    def pass_time(self, seconds: float) -> None:
        """Let a fault last, or its moment come: not a wait for something."""
        time.sleep(seconds)

    def jobs(self, *, indexed: bool = False) -> int:
        """How many jobs of this run's CT series the catalog knows."""
        rows = self.installation.rows(
            "SELECT count(validated_at) AS complete, count(indexed_at) AS indexed FROM catalog_jobs"
            " WHERE series_instance_uid = ANY(%s)",
            [one.uid for one in self.work.series],
        )
        return int(rows[0]["indexed" if indexed else "complete"])


class Fault(Protocol):
    """One kind of fault.

    Attributes
    ----------
    name
        How the command calls it.
    title
        How people call it.
    settings
        Settings of services that it needs, beside the usual ones.
    at_once
        Whether it is applied with the first object, and chooses its moment itself.
    puts
        Whether it puts the objects itself.
    series, slices
        How many CT series are put, and how many slices each has.
    """

    name: str
    title: str
    settings: Mapping[str, Mapping[str, str]]
    at_once: bool
    puts: bool
    series: int
    slices: int

    def apply(self, run: Run) -> None:
        """Break something, and return when it is mended (what supervises processes may still have to start them)."""
        ...

    def check(self, run: Run) -> list[str]:
        """Say what else is wrong, beside the invariant."""
        ...


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended. `recovery` is from the end of the fault until everything had come to its end, in seconds."""

    fault: str
    seed: int
    verdict: Verdict
    recovery: float
    seconds: float
    restarts: int

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost and nothing came twice."""
        return not (self.verdict.lost or self.verdict.duplicated)

    def line(self) -> str:
        """Tell it in one line, with what it takes to repeat it."""
        verdict = self.verdict
        said = "; ".join([*(f"LOST {one}" for one in verdict.lost), *(f"TWICE {one}" for one in verdict.duplicated)])
        return (
            f"{self.fault} --seed {self.seed}: recovered in {self.recovery:.1f} s of {self.seconds:.1f} s,"
            f" {verdict.again} delivered again, {verdict.dead} dead letters{f': {said}' if said else ''}"
        )


def run_once(installation: Installation, fault: Fault, seed: int, *, outage: float, series: int | None = None) -> Ended:
    """Do one run, with so many CT series or the fault's own number. The same fault and seed draw the same moment and the same objects."""
    random = Random(f"{fault.name}/{seed}")
    began = time.monotonic()
    installation.configure(fault.settings)
    before = _starts(installation)
    prefix = f"{fault.name}-{seed}-{random.getrandbits(24):06x}-{time.time_ns():x}"
    work = make_work(random, prefix, series or fault.series, fault.slices)
    run = Run(installation, work, random, outage)
    moment = 0.0 if fault.at_once else random.uniform(0.0, USUAL_SECONDS)
    with ThreadPoolExecutor(1) as threads:
        putting = None if fault.puts else threads.submit(installation.store.put, work.objects())
        run.pass_time(moment)
        fault.apply(run)
        mended = time.monotonic()
        if putting is not None:
            putting.result()
    _put_again(installation, work)
    judge = Judge(installation, work)
    pending = settle(installation, judge)
    settled = time.monotonic()
    _calm(installation)
    installation.broker.drain_tap()
    verdict = judge.judge()
    verdict.lost += [line for line in pending if line not in verdict.lost]
    verdict.lost += fault.check(run)
    ended = Ended(fault.name, seed, verdict, settled - mended, time.monotonic() - began, _starts(installation) - before)
    if ended.is_good:
        _clean(installation, judge)
    return ended


def _put_again(installation: Installation, work: Work) -> None:
    """Put what the store has forgotten, as its client would: a SeaweedFS that is killed may forget the last minute."""
    listed = installation.store.listed(INBOX, f"{work.prefix}/")
    installation.store.put({key: body for key, body in work.objects().items() if key not in listed})


def settle(installation: Installation, judge: Judge) -> list[str]:
    """Wait until everything has come to its end; return what has not, in time."""
    until = time.monotonic() + SETTLE_SECONDS
    while True:
        pending = judge.pending()
        if not pending and all(kept.is_ready() for kept in installation.processes.values()):
            return []
        if time.monotonic() > until:
            return [f"not settled after {SETTLE_SECONDS:g} s: {line}" for line in pending] or ["a process is not ready"]
        time.sleep(LOOK_SECONDS)


def _calm(installation: Installation) -> None:
    """Wait until nothing is under way: no message waits or is in hand, and no event is in an outbox."""
    until = time.monotonic() + SETTLE_SECONDS
    quiet = 0
    while quiet < QUIET_LOOKS:
        stored = installation.rows(
            "SELECT (SELECT count(*) FROM ingest_outbox) + (SELECT count(*) FROM index_outbox) AS events"
        )
        busy = stored[0]["events"] or any(installation.broker.lengths().values()) or installation.in_hand()
        quiet = 0 if busy else quiet + 1
        if time.monotonic() > until:
            return  # whatever it is, the judge looks at what came of it
        time.sleep(LOOK_SECONDS)


def _starts(installation: Installation) -> int:
    return sum(len(kept.exits) for kept in installation.processes.values())


def _clean(installation: Installation, judge: Judge) -> None:
    """Leave nothing that the next run would find."""
    installation.broker.drop_dead_letters()
    installation.store.delete(INBOX, list(installation.store.listed(INBOX, f"{judge.work.prefix}/")))
    for uid in judge.series():
        installation.store.delete(RESULTS, list(installation.store.listed(RESULTS, f"{uid}/")))
        installation.writes.forget(f"{uid}/")
