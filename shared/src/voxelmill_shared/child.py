"""Heavy work in a child process, bounded in memory and time, so that a bad input kills nothing (DESIGN: guarantee 6).

The child is kept between calls, so imports, compiled code and loaded networks are paid once. A child that dies, hangs
or runs out of memory is one failed call with a clear reason, and the next call gets a fresh one.

The protocol is length-prefixed pickles over the child's own pipes (`child_process`), between two processes of the same
program and the same user. The child's standard output is sent to standard error, so a library that prints cannot break
it. Nothing here waits for the child but the call itself: whoever holds a broker's heartbeat goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from voxelmill_shared.child_process import ANSWER, EXIT_NO_MEMORY, REQUEST, memory_reason
from voxelmill_shared.errors import TransientError, VoxelmillError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    OnProgress = Callable[[Any], None] | None

WATCH_SECONDS = 0.1
"""How often the memory of a watched child is looked at."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call may use.

    Parameters
    ----------
    memory_bytes
        The most memory of the child.
    seconds
        The longest that a call may take.
    watched
        How memory is bounded. False: the address space (RLIMIT_AS), so that the very allocation that is too much
        fails. True: the memory that is in use (anonymous RSS) is looked at ten times a second, and the child is killed
        when it is too much. For what needs address space that it never fills: CUDA maps the device's memory and more.
    stop_seconds
        How long a call that was cancelled may take to stop between two of its parts, before the child is killed.
    """

    memory_bytes: int
    seconds: float
    watched: bool = False
    stop_seconds: float = 0.5


class ChildFailedError(TransientError):
    """The child died, hung, ran out of memory or broke in a way that nobody declared; `error_class` says which."""

    def __init__(self, error_class: str, reason: str) -> None:
        super().__init__(reason)
        self.error_class = error_class


class Child:
    """One child process that calls one function, again and again.

    Parameters
    ----------
    target
        `package.module:function`; the function takes one picklable argument and a callable that reports progress,
        and returns something picklable. A `VoxelmillError` that it raises (and that pickles) is raised here. The
        callable raises `WorkCancelledError` when the call was cancelled: the function lets it through.
    limits
        The bounds of each call.
    environment
        Variables of the child that are not ours, or not the same.
    """

    def __init__(self, target: str, limits: Limits, environment: Mapping[str, str] | None = None) -> None:
        self._target = target
        self._limits = limits
        self._environment = dict(environment or {})
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()
        self._calls = 0
        self._over = False

    async def start(self) -> None:
        """Start the child now, so that the first call does not wait for its imports."""
        async with self._lock:
            await self._running()

    async def call(self, argument: Any, on_progress: OnProgress = None) -> Any:
        """Run the function in the child and return what it returns.

        If the call is cancelled, the function is asked to stop where it next reports progress. It has
        `Limits.stop_seconds` for that, and then the child is as warm as before; else the child is killed.

        Raises
        ------
        ChildFailedError
            If the child died, exceeded a limit or raised an error that is not a `VoxelmillError`.
        VoxelmillError
            Whatever the function raised of that kind.
        """
        async with self._lock:
            process = await self._running()
            self._calls += 1
            watch = asyncio.create_task(self._watch(process)) if self._limits.watched else None
            answer = asyncio.create_task(self._exchange(process, argument, on_progress))
            try:
                return await self._answer(answer, process)
            finally:
                if watch is not None:
                    watch.cancel()

    async def _answer(self, answer: asyncio.Task[Any], process: asyncio.subprocess.Process) -> Any:
        try:
            done, _ = await asyncio.wait({answer}, timeout=self._limits.seconds)
        except asyncio.CancelledError:
            await self._stop(answer, process)
            raise
        if not _is_sound(answer):
            await self._end(answer)
        if not done:
            raise ChildFailedError(
                "child-timeout", f"the work took longer than {self._limits.seconds:g} s and was stopped"
            )
        return answer.result()

    async def close(self) -> None:
        """End the child, whatever it is doing."""
        await self._kill()

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._over = False
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "voxelmill_shared.child_process",
                self._target,
                str(0 if self._limits.watched else self._limits.memory_bytes),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, **self._environment},
            )
        return self._process

    async def _exchange(self, process: asyncio.subprocess.Process, argument: Any, on_progress: OnProgress) -> Any:
        stdin, stdout = process.stdin, process.stdout
        if stdin is None or stdout is None:
            raise ChildFailedError("child-exited", "the work's process has no pipes")
        body = pickle.dumps(argument)
        try:
            stdin.write(REQUEST.pack(len(body), self._calls) + body)
            await stdin.drain()
            while True:
                (length,) = ANSWER.unpack(await stdout.readexactly(ANSWER.size))
                kind, value = pickle.loads(await stdout.readexactly(length))  # noqa: S301 - from our own child
                if kind == "progress":
                    if on_progress is not None:
                        on_progress(value)
                elif kind == "result":
                    return value
                elif kind == "error":
                    raise value
                else:
                    raise ChildFailedError(*value)
        except (asyncio.IncompleteReadError, ConnectionError):
            code = await process.wait()
            if self._over or code == EXIT_NO_MEMORY:
                raise ChildFailedError("child-out-of-memory", memory_reason(self._limits.memory_bytes)) from None
            raise ChildFailedError(*_epitaph(code)) from None

    async def _stop(self, answer: asyncio.Task[Any], process: asyncio.subprocess.Process) -> None:
        """Ask the function to stop; kill the child if it does not in time, or if we are cancelled once more."""
        try:
            if not answer.done() and self._limits.stop_seconds and process.stdin is not None:
                process.stdin.write(REQUEST.pack(0, self._calls))
                await asyncio.wait({answer}, timeout=self._limits.stop_seconds)
        finally:
            if not _is_sound(answer):
                await self._end(answer)

    async def _end(self, answer: asyncio.Task[Any]) -> None:
        """Kill the child, and the exchange with it."""
        answer.cancel()
        await self._kill()
        await asyncio.gather(answer, return_exceptions=True)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        while (used := anonymous_bytes(process.pid)) is not None:
            if used > self._limits.memory_bytes:
                self._over = True
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                return
            await asyncio.sleep(WATCH_SECONDS)

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()
        transport = getattr(process, "_transport", None)
        if transport is not None:
            transport.close()


class ChildPool:
    """Several children for one function: as many calls at a time, the others wait in order. A context manager.

    Children start when they are first needed and stay; leaving the context ends them.

    Parameters
    ----------
    target, limits
        As for `Child`.
    size
        How many children.
    warm
        Whether the first child starts with the pool: its imports take a second and 70 to 150 MiB, which a service that
        may have nothing to do for hours does not spend, and whoever waits for a result does not wait for.
    environments
        Variables of each child; the last ones hold for all that are left.
    """

    def __init__(
        self,
        target: str,
        limits: Limits,
        size: int,
        *,
        warm: bool = False,
        environments: Sequence[Mapping[str, str]] = ({},),
    ) -> None:
        self._warm = warm
        self._children = [
            Child(target, limits, environments[min(number, len(environments) - 1)]) for number in range(size)
        ]
        self._free: asyncio.LifoQueue[Child] = asyncio.LifoQueue()

    @property
    def size(self) -> int:
        """How many children there are, started or not."""
        return len(self._children)

    async def __aenter__(self) -> Self:
        for child in self._children:
            self._free.put_nowait(child)
        if self._warm:
            await self._children[-1].start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for child in self._children:
            await child.close()

    @asynccontextmanager
    async def child(self) -> AsyncIterator[Child]:
        """Give a free child, and nobody else meanwhile; whoever asks first gets the first that is free."""
        child = await self._free.get()
        try:
            yield child
        finally:
            self._free.put_nowait(child)

    async def call(self, argument: Any, on_progress: OnProgress = None) -> Any:
        """Call the function in a free child; see `Child.call`."""
        async with self.child() as child:
            return await child.call(argument, on_progress)


def anonymous_bytes(pid: int) -> int | None:
    """Return how much memory of its own a process uses: what it maps of files is not its own.

    None if there is no such process, or no way to tell (only Linux tells).
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    sizes = [int(line.split()[1]) for line in status.splitlines() if line.startswith(("RssAnon:", "RssShmem:"))]
    return sum(sizes) << 10 if sizes else None


def _is_sound(answer: asyncio.Task[Any]) -> bool:
    """Say whether the child can take another call: it has answered, with a result or an error that is its own."""
    if not answer.done() or answer.cancelled():
        return False
    error = answer.exception()
    return error is None or (isinstance(error, VoxelmillError) and not isinstance(error, ChildFailedError))


def _epitaph(code: int) -> tuple[str, str]:
    if code >= 0:
        return "child-exited", f"the work's process ended itself with exit code {code}"
    name = signal.Signals(-code).name
    hint = " (out of memory?)" if -code == signal.SIGKILL else ""
    return "child-died", f"the work's process was killed by {name}{hint}"
