"""Functions that the tests of `voxelmill_shared.child` call in a child process."""

from __future__ import annotations

import _thread
import mmap
import os
import signal
import sys
import time
from pathlib import Path

from voxelmill_shared.work import NotApplicableError, UnsupportedSeriesError


def _print(_, __):
    print("library chatter")
    os.write(1, b"more chatter\n")
    return "printed"


def _progress(value, report):
    for number in range(value):
        report(number)
    return "reported"


def _deaf(_, report):
    report("begun")
    time.sleep(60)


def _parts(value, report):
    """Work in many short parts, as a network does tile by tile."""
    for number in range(value):
        report(number)
        time.sleep(0.01)
    return "whole"


def _hold(value, report):
    held = bytearray(value)
    held[:] = b"x" * value
    report("held")
    time.sleep(60)


def _thread_without_memory(_, __):
    """What a `Thread.start` does whose thread finds no memory as it begins: wait for one that has gone."""

    def begin():
        raise MemoryError

    _thread.start_new_thread(begin, ())
    time.sleep(60)


def _unsupported(value, _):
    raise UnsupportedSeriesError("missing-slices", value)


def _not_applicable(value, _):
    raise NotApplicableError(value)


ACTIONS = {
    "thread-without-memory": _thread_without_memory,
    "echo": lambda value, _: value,
    "pid": lambda _, __: os.getpid(),
    "print": _print,
    "progress": _progress,
    "deaf": _deaf,
    "parts": _parts,
    "hold": _hold,
    "environment": lambda value, _: os.environ.get(value),
    "exit": lambda value, _: sys.exit(value),
    "os-exit": lambda value, _: os._exit(value),
    "kill": lambda value, _: os.kill(os.getpid(), value),
    "segfault": lambda _, __: os.kill(os.getpid(), signal.SIGSEGV),
    "sleep": lambda value, _: time.sleep(value),
    "allocate": lambda value, _: len(bytearray(value)),
    "map": lambda value, _: len(mmap.mmap(-1, value)),
    "fill": lambda value, _: Path(value).write_bytes(b"x"),
    "unsupported": _unsupported,
    "not-applicable": _not_applicable,
}


def act(task, report):
    """Do what the task says."""
    word, value = task
    return ACTIONS[word](value, report)
