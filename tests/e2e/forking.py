"""Runs `voxelmill` again and again, and imports it once: each command is a fork of a process that has imported it.

usage: forking.py DESCRIPTOR

A request on the socket DESCRIPTOR is a JSON document (arguments, folder, environment) and the two files that take what
the command says. The answers are the command's process id, when it starts, and its exit code, when it has ended. From
`main` on the fork is the process that `python -m voxelmill_cli` is: it has its own environment, folder, signals and
end. What comes before `main`, the imports, is for the tests that start an interpreter.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
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


def import_command() -> None:
    """Import every module of the command, for most of them are imported late."""
    import voxelmill_cli

    gc.disable()
    for module in pkgutil.walk_packages(voxelmill_cli.__path__, "voxelmill_cli."):
        if not module.name.rpartition(".")[2].startswith(NOT_IMPORTED):
            importlib.import_module(module.name)
    from voxelmill_cli.doctor import CODECS

    for name in (*LATE, *CODECS):
        with suppress(ImportError):  # of a codec that is not there, `doctor` tells
            importlib.import_module(name)
    gc.freeze()
    gc.enable()


def serve(requests: socket.socket) -> bool:
    """Answer requests until nobody asks any more; in a fork return True, to be the command."""
    while True:
        body, descriptors, *_ = socket.recv_fds(requests, REQUEST_BYTES, 2)
        if not body:
            return False
        if (process := os.fork()) == 0:
            requests.close()
            become(json.loads(body), descriptors)
            return True
        for descriptor in descriptors:
            os.close(descriptor)
        requests.send(ANSWER.pack(process))
        requests.send(ANSWER.pack(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])))


def become(request: dict[str, object], output: list[int]) -> None:
    """Take on what a process gets from whoever starts it."""
    for number, descriptor in enumerate(output, 1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = ["voxelmill", *request["arguments"]]


if __name__ == "__main__":
    import_command()
    assert threading.active_count() == 1, "a fork would miss the other threads"
    if serve(socket.socket(fileno=int(sys.argv[1]))):
        from voxelmill_cli.__main__ import main

        main()
