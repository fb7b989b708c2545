"""Starts every process of an installation, keeps them running, and ends them in order: services first, then servers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from stack.folder import Facts, Folder, explained
from stack.installation import DRAIN_SECONDS, Installation, names_of
from stack.ports import are_free
from stack.processes import Process, boot, wait
from stack.program import Program, StackError
from stack.secret import write_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

READY_SECONDS = 120.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
STEADY_SECONDS = 60.0
"""What ran as long as this is started again at once; the pauses grow for what ends sooner."""
TRIES = 3
WRONG_SETTING = 2
WAVES = 3


class PortTakenError(StackError):
    """Another program took a port between our choice of it and the server's start."""


@dataclass(slots=True)
class Child:
    """One program, the process that runs it now, and what became of it."""

    program: Program
    process: Process | None = None
    ready: bool = False
    starts: int = 0
    stopping: bool = False
    code: int | None = None
    keeper: asyncio.Task[None] | None = None
    first: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def pass_on(self, keeper: asyncio.Task[None]) -> None:
        """Let whoever waits for the first start know that its keeper broke."""
        if not self.first.done() and not keeper.cancelled() and (error := keeper.exception()) is not None:
            self.first.set_exception(error)

    def facts(self) -> dict[str, object]:
        """How it stands."""
        return {
            "name": self.program.name,
            "pid": None if self.process is None else self.process.pid,
            "port": self.program.ports[0],
            "ready": self.ready,
            "starts": self.starts,
            "code": self.code,
        }


class Supervisor:
    """Keeps the processes of one installation.

    Parameters
    ----------
    folder
        Where it stands; the caller holds its lock.
    scale
        How many processes of each service.
    report
        Told how far the start is, in words for people.
    """

    def __init__(self, folder: Folder, scale: Mapping[str, int], report: Callable[[str], None]) -> None:
        self._folder = folder
        self._scale = dict(scale)
        self._report = report
        self._children: dict[str, Child] = {}
        self._phase = "starting"

    async def run(self, ready: Callable[[], None]) -> None:
        """Start everything, call `ready`, keep everything until SIGTERM or SIGINT, end everything.

        Raises
        ------
        StackError
            If something does not start; by then everything has been ended again.
        """
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        self._note("starting")
        left = [process for process in self._folder.started() if process.family()]
        if left:
            self._report(f"ending {len(left)} processes that a killed supervisor had left")
            await asyncio.to_thread(end_recorded, left)
        stopping = asyncio.create_task(stop.wait())
        starting = asyncio.create_task(self._start())
        try:
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                self._note("ready")
                ready()
                keepers = [child.keeper for child in self._children.values() if child.keeper is not None]
                done, _ = await asyncio.wait((stopping, *keepers), return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # a keeper ends before it is told to only by an error of this program
        finally:
            starting.cancel()
            stopping.cancel()
            self._note("stopping")
            await self._stop()
            self._note("down")

    async def _start(self) -> None:
        for tries_left in reversed(range(TRIES)):
            try:
                return await self._start_once()
            except PortTakenError as error:
                self._say(f"{error}; trying others")
                await self._stop()
                if not tries_left:
                    raise
        raise AssertionError("the last try raises or returns")

    async def _start_once(self) -> None:
        try:
            facts = Facts.read(self._folder)
            facts.settle_ports(names_of(self._scale))
            facts.write(self._folder)
            installation = Installation.plan(self._folder, facts)
            await asyncio.to_thread(installation.configure)
        except OSError as error:
            raise explained(error, self._folder.root) from None
        self._report("starting RabbitMQ, SeaweedFS and PostgreSQL")
        for wave in installation.servers():
            await self._start_all(wave)
        await self._prepare(installation)
        services = installation.services(self._scale)
        self._report(f"starting {len(services)} processes of {sum(map(bool, self._scale.values()))} services")
        await self._start_all(services)

    async def _start_all(self, programs: Iterable[Program]) -> None:
        children = [Child(program) for program in programs]
        for child in children:
            self._children[child.program.name] = child
            child.keeper = asyncio.create_task(self._keep(child))
            child.keeper.add_done_callback(child.pass_on)
        await asyncio.gather(*(child.first for child in children))

    async def _prepare(self, installation: Installation) -> None:
        """Make the database and the buckets."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("prepare.py")),
            env=installation.environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        _, errors = await process.communicate()
        if process.returncode:
            said = errors.decode(errors="replace").strip().splitlines() or ["it said nothing"]
            raise StackError(f"the database and the buckets could not be made: {said[-1]}; see {self._folder.logs}")

    async def _keep(self, child: Child) -> None:
        """Run one program again and again until it is stopped."""
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            try:
                reason = await self._live(child)
            except OSError as error:
                reason = str(explained(error, self._folder.root))
            if child.stopping:
                return
            name = child.program.name
            if not child.first.done() and (end := self._gave_up(child, reason)) is not None:
                child.first.set_exception(end)
                return
            if time.monotonic() - began > STEADY_SECONDS:
                pause = FIRST_PAUSE
            self._say(f"{name}: {reason}; starting it again in {pause:g} s")
            self._note()
            await asyncio.sleep(pause)
            if child.stopping:
                return
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _live(self, child: Child) -> str:
        """Run one program once; return how it ended."""
        program = child.program
        running = self._spawn(child)
        exited = _exit_of(running.pid)
        ready = asyncio.create_task(_until_ready(program))
        try:
            self._record()
            await asyncio.wait((exited, ready), timeout=READY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if exited.done():
                return _how(await self._reap(child, running), self._last_words(program.name))
            if not ready.done():
                return f"was not ready after {READY_SECONDS:g} s"
            child.ready = True
            if not child.first.done():
                child.first.set_result(None)
            self._note()
            await exited
            return _how(await self._reap(child, running), self._last_words(program.name))
        finally:
            ready.cancel()
            await self._reap(child, running)
            exited.cancel()

    def _spawn(self, child: Child) -> subprocess.Popen[bytes]:
        program = child.program
        with self._log_of(program.name).open("ab") as log:
            running = subprocess.Popen(
                # Should this supervisor be killed, its children end too.
                ["setpriv", f"--pdeathsig={program.goodbye.name}", *program.command],
                env=program.environment,
                cwd=program.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        child.process, child.starts, child.code = Process.of(program.name, running.pid), child.starts + 1, None
        return running

    async def _reap(self, child: Child, running: subprocess.Popen[bytes]) -> int:
        """End what is left of a process and of its children, and take its exit code."""
        if child.process is not None:
            await asyncio.to_thread(child.process.kill)
            child.code, child.process, child.ready = running.wait(), None, False
            self._record()
        return running.wait()

    def _gave_up(self, child: Child, reason: str) -> StackError | None:
        """Say whether a start that never succeeded is not tried again."""
        program = child.program
        line = f"{program.name} did not start: {reason}"
        if not are_free(program.ports):
            return PortTakenError(f"{line} (its port {program.ports[0]} is taken)")
        if program.name in names_of(self._scale) and child.code != WRONG_SETTING and child.starts < TRIES:
            return None
        code = WRONG_SETTING if child.code == WRONG_SETTING else 3
        return StackError(f"{line}; see {self._log_of(program.name)}", code)

    async def _stop(self) -> None:
        """End the services, which drain meanwhile; then the servers; then the broker's port mapper."""
        for wave in range(WAVES):
            group = [child for name, child in self._children.items() if _wave(name) == wave]
            keepers = [child.keeper for child in group if child.keeper is not None]
            if not keepers:
                continue
            for child in group:
                child.stopping = True
                if child.process is not None:
                    child.process.ask(child.program.goodbye)
                elif child.keeper is not None:
                    child.keeper.cancel()
            await asyncio.wait(keepers, timeout=max(child.program.patience for child in group))
            for child in group:
                if child.process is not None:
                    self._say(f"{child.program.name}: did not end in {child.program.patience:g} s; killed")
                    await asyncio.to_thread(child.process.kill)
            await asyncio.wait(keepers)

    def _record(self) -> None:
        """Note every process that runs, for whoever comes after this supervisor."""
        self._folder.write_started([child.process for child in self._children.values() if child.process is not None])

    def _note(self, phase: str | None = None) -> None:
        """Write down how it stands, for `make ps` and whoever else asks."""
        self._phase = phase or self._phase
        document = {
            "boot": boot(),
            "supervisor": asdict(Process.of("supervisor", os.getpid())),
            "phase": self._phase,
            "scale": self._scale,
            "patience": sum(
                max((c.program.patience for n, c in self._children.items() if _wave(n) == wave), default=0.0)
                for wave in range(WAVES)
            ),
            "processes": [child.facts() for child in self._children.values()],
        }
        try:
            write_secret(self._folder.state, json.dumps(document))
        except OSError as error:
            # The disk is full, say. What runs is worth more than the note of it, and the next note may find room.
            self._say(str(explained(error, self._folder.root)))

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError):  # as above: no room for a line of the log ends no service
            sys.stderr.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}\n")
            sys.stderr.flush()

    def _log_of(self, name: str) -> Path:
        return self._folder.logs / f"{name}.log"

    def _last_words(self, name: str) -> str:
        lines = self._log_of(name).read_bytes()[-4096:].decode(errors="replace").split("\n")
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def _how(code: int, words: str) -> str:
    """Say how a process ended."""
    how = f"ended with exit code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
    return f"{how}, saying: {words}" if words and code > 0 else how


def _exit_of(pid: int) -> asyncio.Future[None]:
    """Return a future that is done when a child has ended; it is not waited for, so its number stays its own."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    descriptor = os.pidfd_open(pid)

    def close(_: asyncio.Future[None]) -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)

    def ended() -> None:
        if not future.done():
            future.set_result(None)

    loop.add_reader(descriptor, ended)
    future.add_done_callback(close)
    return future


async def _until_ready(program: Program) -> None:
    while True:
        if await asyncio.to_thread(program.is_ready):
            return
        await asyncio.sleep(0.1)


def end_recorded(processes: Sequence[Process]) -> None:
    """End what a supervisor that was killed has left: services first, so that they drain."""
    for wave in range(WAVES):
        group = [process for process in processes if _wave(process.name) == wave]
        for process in group:
            process.ask(signal.SIGINT if process.name == "postgresql" else signal.SIGTERM)
        wait([process.pid for process in group if process.is_alive()], DRAIN_SECONDS)
        for process in group:
            process.kill()


def _wave(name: str) -> int:
    """The order of ending: services, then servers, then the broker's port mapper."""
    return {"rabbitmq": 1, "seaweedfs": 1, "postgresql": 1, "epmd": 2}.get(name, 0)
