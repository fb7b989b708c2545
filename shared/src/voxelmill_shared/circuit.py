"""Waiting for a dependency that is away: nothing is taken until it answers again (DESIGN: guarantee 5).

Without this, every message of a queue would be taken, fail and go round over the first rung for as long as the store
is down. A circuit opens with the first failure that the dependency's own check confirms; then the worker cancels its
consumers, hands back what is in hand, and asks the check again and again. No attempt is spent.

A check that passes while the work fails (a store that answers and takes no objects) is believed a few times in a row,
and then no more: the work goes on at growing intervals, until a message is done.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

import structlog

from voxelmill_shared.errors import (
    NO_ROOM,
    BrokerUnavailableError,
    DatabaseUnavailableError,
    DependencyAwayError,
    DiskFullError,
    StoreUnavailableError,
    VoxelmillError,
)
from voxelmill_shared.metrics import CIRCUIT_OPEN

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    Check = Callable[[], Coroutine[object, object, None]]

log = structlog.get_logger("voxelmill")

FIRST_PAUSE, LONGEST_PAUSE, GROWTH = 0.5, 30.0, 1.15
"""Seconds between two questions, and how many times longer each pause is than the one before, so that a dependency
that is back is noticed within a fifth of the time that it was away. By chance a pause is up to a half shorter:
replicas do not ask together."""
CHECK_SECONDS = 10.0
"""How long a dependency may take to answer its check: a stopped process keeps its connections and says nothing."""
MOST_FAILURES = 5
"""How many messages in a row may fail while the check passes, before the check is not believed."""


class Dependency(StrEnum):
    """What a service cannot work without."""

    STORE = "store"
    DATABASE = "database"
    BROKER = "broker"
    DISK = "disk"


CHECKS: Mapping[Dependency, tuple[str, ...]] = {
    Dependency.STORE: ("inbox", "work", "results"),
    Dependency.DATABASE: ("database",),
    Dependency.DISK: ("disk",),
}
"""The names in `Service.checks` that say whether a dependency answers. The broker's is the transport's own."""


@dataclass(frozen=True, slots=True)
class Outage:
    """What an error says of a dependency."""

    dependency: Dependency
    error_class: str
    reason: str


def outage_of(error: BaseException) -> Outage | None:
    """Say which dependency an error shows to be away; None if it shows no such thing."""
    for one in (error, error.__cause__):
        if isinstance(one, OSError) and one.errno in NO_ROOM:
            return Outage(Dependency.DISK, DiskFullError.error_class, _one_line(error))
    for kind, dependency in (
        (DiskFullError, Dependency.DISK),
        (StoreUnavailableError, Dependency.STORE),
        (DatabaseUnavailableError, Dependency.DATABASE),
        (BrokerUnavailableError, Dependency.BROKER),
    ):
        if isinstance(error, kind):
            return Outage(dependency, error.error_class, _one_line(error))
    return None


class Circuit:
    """One dependency of one service: closed while it answers, open while it is waited for.

    Parameters
    ----------
    service, dependency
        Whose, and which.
    checks
        What says whether it answers, all of them; with none the circuit never opens.
    opened
        Is set whenever the circuit opens.
    """

    def __init__(self, service: str, dependency: Dependency, checks: Sequence[Check], opened: asyncio.Event) -> None:
        self._service = service
        self._dependency = dependency
        self._checks = tuple(checks)
        self._opened = opened
        self._open_metric = CIRCUIT_OPEN.labels(service, dependency.value)
        self._open_metric.set(0)
        self._decision: asyncio.Future[bool] | None = None
        self._task: asyncio.Task[None] | None = None
        self._since: datetime | None = None
        self._reason = ""
        self._failures = 0
        self._pause = FIRST_PAUSE

    @property
    def is_open(self) -> bool:
        """Whether the dependency is waited for."""
        return self._since is not None

    async def failed(self, reason: str) -> bool:
        """Take note of a failure; return whether the dependency is waited for: the message is then to be handed back.

        If the check passes, it is not: the failure was this message's alone.
        """
        if not self._checks:
            return False
        self._failures += 1
        if self.is_open:
            return True
        if self._decision is None:
            self._decision = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._watch(reason, self._decision))
        return await asyncio.shield(self._decision)

    def succeeded(self) -> None:
        """Take note that a message was done."""
        self._failures = 0
        self._pause = FIRST_PAUSE

    async def check(self) -> None:
        """Return if the circuit is closed; for `/readyz`.

        Raises
        ------
        DependencyAwayError
            If it is open: since when, and why.
        """
        if self._since is not None:
            since = self._since.isoformat(timespec="seconds")
            raise DependencyAwayError(f"waiting since {since}: {self._reason}")

    async def closed(self) -> None:
        """Return when the circuit is closed."""
        if self._task is not None:
            await asyncio.wait({self._task})
            if not self._task.cancelled():
                self._task.result()

    def stop(self) -> None:
        """Ask no more. Whoever waits for a decision is told to hand back."""
        if self._decision is not None and not self._decision.done():
            self._decision.set_result(True)
        if self._task is not None:
            self._task.cancel()

    async def _watch(self, reason: str, decision: asyncio.Future[bool]) -> None:
        """Decide whether to open; if so, ask until the dependency answers."""
        try:
            error = await self._ask()
            confirmed = error is not None
            if error is None and self._failures < MOST_FAILURES:
                return
            self._open(error or reason)
            decision.set_result(True)
            while True:
                await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))
                self._pause = min(GROWTH * self._pause, LONGEST_PAUSE)
                error = await self._ask()
                if error is None:
                    break
                confirmed, self._reason = True, error
            self._close()
            if confirmed:
                self.succeeded()
        finally:
            self._decision = None
            if not decision.done():
                decision.set_result(False)

    async def _ask(self) -> str | None:
        """Return why the dependency cannot be worked with; None if its checks pass."""
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                for check in self._checks:
                    await check()
        except TimeoutError:
            return f"no answer within {CHECK_SECONDS:g} s"
        except VoxelmillError as error:
            return _one_line(error)
        return None

    def _open(self, reason: str) -> None:
        self._since, self._reason = datetime.now(UTC), reason
        self._open_metric.set(1)
        self._opened.set()
        log.warning(
            "waiting for a dependency, taking no messages",
            service=self._service,
            dependency=self._dependency.value,
            reason=reason,
        )

    def _close(self) -> None:
        since, self._since, self._reason = self._since, None, ""
        self._open_metric.set(0)
        seconds = (datetime.now(UTC) - since).total_seconds() if since else 0.0
        log.info(
            "the dependency answers, taking messages",
            service=self._service,
            dependency=self._dependency.value,
            seconds=round(seconds, 1),
        )


class Circuits:
    """The circuits of one service.

    Parameters
    ----------
    service
        Its name.
    checks
        Its checks (see `Service.checks`), of which some stand for dependencies.
    broker
        The transport's check.
    """

    def __init__(self, service: str, checks: Mapping[str, Check], broker: Check) -> None:
        self.opened = asyncio.Event()
        """Set when one opens; whoever cancels the consumers clears it."""
        found: dict[Dependency, list[Check]] = {
            dependency: [checks[name] for name in names if name in checks] for dependency, names in CHECKS.items()
        }
        found[Dependency.BROKER] = [broker]
        self._circuits = {
            dependency: Circuit(service, dependency, found[dependency], self.opened) for dependency in Dependency
        }
        self._used = [dependency for dependency in Dependency if found[dependency]]

    async def failed(self, outage: Outage) -> bool:
        """Take note of a failure; return whether its dependency is waited for."""
        return await self._circuits[outage.dependency].failed(outage.reason)

    def succeeded(self) -> None:
        """Take note that a message was done: nothing that it took is away."""
        for circuit in self._circuits.values():
            circuit.succeeded()

    async def closed(self) -> None:
        """Return when no circuit is open."""
        while any(circuit.is_open for circuit in self._circuits.values()):
            for circuit in self._circuits.values():
                await circuit.closed()

    def checks(self) -> dict[str, Check]:
        """What `/readyz` asks: for each dependency, whether it is waited for."""
        return {dependency.value: self._circuits[dependency].check for dependency in self._used}

    def stop(self) -> None:
        """Ask no more."""
        for circuit in self._circuits.values():
            circuit.stop()


def _one_line(error: BaseException) -> str:
    text = (error.strerror or "") if isinstance(error, OSError) else str(error)
    return " ".join(text.split()) or type(error).__name__
