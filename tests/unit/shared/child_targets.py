"""Functions that the tests of `voxelmill_shared.child` call in a child process."""

from __future__ import annotations

import os
import signal
import sys
import time

from voxelmill_shared.work import NotApplicableError, UnsupportedSeriesError


def act(task, report):
    """Do what the task says."""
    word, value = task
    if word == "echo":
        return value
    if word == "pid":
        return os.getpid()
    if word == "print":
        print("library chatter")
        os.write(1, b"more chatter\n")
        return "printed"
    if word == "progress":
        for number in range(value):
            report(number)
        return "reported"
    if word == "exit":
        sys.exit(value)
    if word == "os-exit":
        os._exit(value)
    if word == "kill":
        os.kill(os.getpid(), value)
    if word == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == "sleep":
        time.sleep(value)
    if word == "allocate":
        return len(bytearray(value))
    if word == "unsupported":
        raise UnsupportedSeriesError("missing-slices", value)
    if word == "not-applicable":
        raise NotApplicableError(value)
    raise KeyError(word)
