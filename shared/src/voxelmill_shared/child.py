"""Heavy work in a child process, bounded in memory and time, so that a bad input kills nothing (DESIGN: guarantee 6).

The child is kept between calls, so imports and compiled code are paid once. A child that dies, hangs or runs out of
memory is one failed call with a clear reason, and the next call gets a fresh one.

The protocol is length-prefixed pickles over the child's own pipes, between two processes of the same program and the
same user. The child's standard output is sent to standard error, so a library that prints cannot break it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import pickle
import resource
import signal
import struct
import sys
import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from voxelmill_shared.errors import TransientError, VoxelmillError

if TYPE_CHECKING:
    from collections.abc import Callable

_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call may use. `memory_bytes` bounds the address space (RLIMIT_AS) of the child."""

    memory_bytes: int
    seconds: float


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
        and returns something picklable. A `VoxelmillError` that it raises (and that pickles) is raised here.
    limits
        The bounds of each call.
    """

    def __init__(self, target: str, limits: Limits) -> None:
        self._target = target
        self._limits = limits
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Start the child now, so that the first call does not wait for its imports."""
        async with self._lock:
            await self._running()

    async def call(self, argument: Any, on_progress: Callable[[Any], None] | None = None) -> Any:
        """Run the function in the child and return what it returns.

        Raises
        ------
        ChildFailedError
            If the child died, exceeded a limit or raised an error that is not a `VoxelmillError`.
        VoxelmillError
            Whatever the function raised of that kind.
        """
        async with self._lock:
            process = await self._running()
            try:
                return await asyncio.wait_for(self._exchange(process, argument, on_progress), self._limits.seconds)
            except TimeoutError:
                await self._kill()
                raise ChildFailedError(
                    "child-timeout", f"the work took longer than {self._limits.seconds:g} s and was stopped"
                ) from None
            except ChildFailedError:
                await self._kill()
                raise
            except VoxelmillError:
                raise  # the function's own answer: the child is sound
            except BaseException:
                await self._kill()  # cancelled in the middle of an exchange: the pipes are out of step
                raise

    async def close(self) -> None:
        """End the child, whatever it is doing."""
        await self._kill()

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "voxelmill_shared.child",
                self._target,
                str(self._limits.memory_bytes),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        return self._process

    async def _exchange(
        self, process: asyncio.subprocess.Process, argument: Any, on_progress: Callable[[Any], None] | None
    ) -> Any:
        stdin, stdout = process.stdin, process.stdout
        if stdin is None or stdout is None:
            raise ChildFailedError("child-exited", "the work's process has no pipes")
        body = pickle.dumps(argument)
        try:
            stdin.write(_LENGTH.pack(len(body)) + body)
            await stdin.drain()
            while True:
                (length,) = _LENGTH.unpack(await stdout.readexactly(_LENGTH.size))
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
            raise ChildFailedError(*_epitaph(code)) from None

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
    """Several children for one function: as many calls at a time, the others wait. A context manager.

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
    """

    def __init__(self, target: str, limits: Limits, size: int, *, warm: bool = False) -> None:
        self._warm = warm
        self._children = [Child(target, limits) for _ in range(size)]
        self._free: asyncio.LifoQueue[Child] = asyncio.LifoQueue()

    async def __aenter__(self) -> Self:
        for child in self._children:
            self._free.put_nowait(child)
        if self._warm:
            await self._children[-1].start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for child in self._children:
            await child.close()

    async def call(self, argument: Any, on_progress: Callable[[Any], None] | None = None) -> Any:
        """Call the function in a free child; see `Child.call`."""
        child = await self._free.get()
        try:
            return await child.call(argument, on_progress)
        finally:
            self._free.put_nowait(child)


def _epitaph(code: int) -> tuple[str, str]:
    if code >= 0:
        return "child-exited", f"the work's process ended itself with exit code {code}"
    name = signal.Signals(-code).name
    hint = " (out of memory?)" if -code == signal.SIGKILL else ""
    return "child-died", f"the work's process was killed by {name}{hint}"


def _serve(target: str, memory_bytes: int) -> None:
    """Answer calls until standard input ends. Runs in the child."""
    requests: BinaryIO = os.fdopen(os.dup(0), "rb")
    answers: BinaryIO = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # What libraries warn of may quote the data set, a patient's name included: none of it reaches a log.
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    inbox: list[bytes] = []
    arrived = threading.Semaphore(0)

    def receive() -> None:
        # In a thread of its own: if the parent dies while we compute, we end at once and hold nothing up.
        while True:
            head = requests.read(_LENGTH.size)
            if len(head) < _LENGTH.size:
                os._exit(0)
            body = requests.read(_LENGTH.unpack(head)[0])
            inbox.append(body)
            arrived.release()

    def send(kind: str, value: Any) -> None:
        body = pickle.dumps((kind, value))
        answers.write(_LENGTH.pack(len(body)) + body)
        answers.flush()

    threading.Thread(target=receive, daemon=True, name="requests").start()
    module, _, name = target.partition(":")
    function = getattr(importlib.import_module(module), name)
    while True:
        arrived.acquire()
        try:
            argument = pickle.loads(inbox.pop())  # noqa: S301 - from our own parent
            send("result", function(argument, lambda value: send("progress", value)))
        except VoxelmillError as error:
            send("error", error)
        except MemoryError:
            send(
                "failed",
                ("child-out-of-memory", f"the work needs more than its {memory_bytes >> 20} MiB of memory"),
            )
        except Exception as error:  # noqa: BLE001 - this is the runtime's edge: whatever broke becomes a reason
            sys.excepthook(type(error), error, error.__traceback__)
            send("failed", ("unexpected", f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
