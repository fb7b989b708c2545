"""The other side of `child`: the process that calls the function. Run as `python -m voxelmill_shared.child_process`.

Frames to the child are a length, a call's number and a pickled argument; a length of 0 asks for that call to stop.
Frames from the child are a length and a pickled `(kind, value)`: progress, result, error or failed.
"""

from __future__ import annotations

import gc
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
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from voxelmill_shared.errors import NO_ROOM, DiskFullError, VoxelmillError
from voxelmill_shared.privacy import describe, format_error
from voxelmill_shared.work import WorkCancelledError

if TYPE_CHECKING:
    from collections.abc import Callable

REQUEST = struct.Struct("<QQ")
ANSWER = struct.Struct("<Q")
EXIT_NO_MEMORY = 86
"""The exit code of a child whose memory ended where it could not say so."""


class Requests:
    """What the parent asks for, read in a thread of its own: it can be seen while the function runs.

    If the parent dies while the function runs, the process ends at once and holds nothing up.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._arrived = threading.Semaphore(0)
        self._cancelled = 0
        threading.Thread(target=self._receive, daemon=True, name="requests").start()

    def next(self) -> tuple[int, bytes]:
        """Wait for the next call; return its number and its argument."""
        self._arrived.acquire()
        return self._waiting.popleft()

    def check(self, number: int) -> None:
        """Return if the result of this call is still wanted.

        Raises
        ------
        WorkCancelledError
            If it is not. A request to stop that comes late, when the next call is running, does not touch that one.
        """
        if self._cancelled >= number:
            raise WorkCancelledError("stopped on request: nobody wants the result any more")

    def _receive(self) -> None:
        while True:
            head = self._stream.read(REQUEST.size)
            if len(head) < REQUEST.size:
                os._exit(0)
            length, number = REQUEST.unpack(head)
            if length:
                self._waiting.append((number, self._stream.read(length)))
                self._arrived.release()
            else:
                self._cancelled = number


def serve(target: str, memory_bytes: int) -> None:
    """Answer calls until standard input ends.

    Parameters
    ----------
    target
        `package.module:function`, see `child.Child`.
    memory_bytes
        The bound on the address space, 0 for none.
    """
    requests = Requests(os.fdopen(os.dup(0), "rb"))
    answers: BinaryIO = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_without_memory()
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # What libraries warn of may quote the data set, a patient's name included: none of it reaches a log.
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)

    def send(kind: str, value: Any) -> None:
        body = pickle.dumps((kind, value))
        answers.write(ANSWER.pack(len(body)) + body)
        answers.flush()

    function = load(target)
    while True:
        number, body = requests.next()

        def report(value: Any, number: int = number) -> None:
            requests.check(number)
            send("progress", value)

        try:
            argument = pickle.loads(body)  # noqa: S301 - from our own parent
            requests.check(number)
            send("result", function(argument, report))
        except VoxelmillError as error:
            send("error", error)
        except MemoryError:
            send("failed", ("child-out-of-memory", memory_reason(memory_bytes)))
        except Exception as error:  # noqa: BLE001 - this is the runtime's edge: whatever broke becomes a reason
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                # No fault of the work's, and nothing to trace: it waits for room and is done again.
                send("error", DiskFullError(f"the disk is full: {error.strerror}"))
            else:
                sys.stderr.write(f"{format_error(error)}\n")
                send("failed", ("unexpected", describe(error)))
        finally:
            body = b""
            argument = None  # what it holds must not stay in memory until the next call


def end_without_memory() -> None:
    """From now on end the process where memory runs out in a place that can tell nobody.

    A thread that finds no memory as it begins leaves whoever started it waiting for ever. It cannot run a line of
    Python either, so all that is called there is compiled, and wakes a thread that has been here before.
    """
    ignored: SimpleQueue[sys.UnraisableHookArgs] = SimpleQueue()

    def watch() -> None:
        while True:
            each = ignored.get()
            if issubclass(each.exc_type, MemoryError):
                os._exit(EXIT_NO_MEMORY)
            sys.__unraisablehook__(each)

    threading.Thread(target=watch, daemon=True, name="memory").start()
    sys.unraisablehook = ignored.put


def load(target: str) -> Callable[..., Any]:
    """Import a function, without looking for garbage in what its libraries make and keep: a quarter of the time."""
    module, _, name = target.partition(":")
    gc.disable()
    try:
        return cast("Callable[..., Any]", getattr(importlib.import_module(module), name))
    finally:
        gc.freeze()
        gc.enable()


def memory_reason(memory_bytes: int) -> str:
    """Say in one line that the bound on memory was met; 0 is no bound but the machine's own."""
    if not memory_bytes:
        return "the work needs more memory than this machine has"
    return f"the work needs more than its {memory_bytes >> 20} MiB of memory (VOXELMILL_CHILD_MEMORY_MIB)"


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
