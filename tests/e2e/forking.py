"""Runs `voxelmill` and the services again and again, and imports them once: each is a fork of a process that has.

usage: forking.py DESCRIPTOR

A request on the socket DESCRIPTOR is a JSON document (module, arguments, folder, environment) and three files: a socket
for the answers and two that take what is said. The answers are the process id, when it starts, and its exit code, when
it has ended. From the module's `main` on the fork is the process that `python -m` makes: it has its own environment,
folder, signals and end. What comes before `main`, the imports, is for the tests that start an interpreter. Whoever
still runs when nobody asks any more is killed.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import struct
import sys
import threading
from contextlib import suppress

REQUEST_BYTES = 1 << 20
ANSWER = struct.Struct("<q")
NOT_IMPORTED = ("__main__", "demo", "phantom")
"""What only the command `demo` wants: a second of imports."""
LATE = ("aiosqlite", "sqlalchemy.dialects.sqlite.aiosqlite", "voxelmill_shared.migration_environment.apply")
"""What is imported when a database is opened."""
MAINS = tuple(
    f"voxelmill_{name}.__main__" for name in ("cli", "ingest", "thumbnail", "segment", "mesh", "index", "gateway")
)


def import_commands() -> None:
    """Import every module of the command, for most of them are imported late, and the services' entries."""
    import voxelmill_cli

    gc.disable()
    for module in pkgutil.walk_packages(voxelmill_cli.__path__, "voxelmill_cli."):
        if not module.name.rpartition(".")[2].startswith(NOT_IMPORTED):
            importlib.import_module(module.name)
    from voxelmill_cli.doctor import CODECS

    for name in (*MAINS, *LATE, *CODECS):
        with suppress(ImportError):  # of a codec that is not there, `doctor` tells
            importlib.import_module(name)
    gc.freeze()
    gc.enable()


def serve(requests: socket.socket) -> str:
    """Answer requests until nobody asks any more; in a fork return the module that it is to be."""
    running: dict[int, tuple[int, socket.socket]] = {}  # by their descriptors: process ids, and who asked
    while True:
        for ready in select.select([requests, *running], [], [])[0]:
            if ready is not requests:
                process, answers = running.pop(ready)
                os.close(ready)
                with answers:
                    answer(answers, os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
                continue
            body, descriptors, *_ = socket.recv_fds(requests, REQUEST_BYTES, 3)
            if not body:
                for process, _ in running.values():
                    os.kill(process, signal.SIGKILL)
                return ""
            if (process := os.fork()) == 0:
                requests.close()
                for descriptor, (_, answers) in running.items():
                    os.close(descriptor)
                    answers.close()
                os.close(descriptors[0])
                return become(json.loads(body), descriptors[1:])
            for descriptor in descriptors[1:]:
                os.close(descriptor)
            answers = socket.socket(fileno=descriptors[0])
            answer(answers, process)
            running[os.pidfd_open(process)] = process, answers


def answer(answers: socket.socket, number: int) -> None:
    """Tell whoever asked, unless nobody waits any more."""
    with suppress(BrokenPipeError):
        answers.send(ANSWER.pack(number))


def become(request: dict[str, object], output: list[int]) -> str:
    """Take on what a process gets from whoever starts it."""
    for number, descriptor in enumerate(output, 1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path += filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    os.chdir(request["folder"])
    sys.argv = ["voxelmill", *request["arguments"]]
    return str(request["module"])


if __name__ == "__main__":
    import_commands()
    assert threading.active_count() == 1, "a fork would miss the other threads"
    if module := serve(socket.socket(fileno=int(sys.argv[1]))):
        importlib.import_module(module).main()
