"""The commands behind `make up`, `make down`, `make ps` and `make logs`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stack import control, say
from stack.folder import Folder
from stack.installation import read_scale
from stack.program import StackError
from stack.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

COMMAND = "voxelmill stack"


def main() -> int:
    """Do one command; return its exit code."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("command", choices=("up", "down", "ps", "logs", "supervise"))
    parser.add_argument("--dir", default=".voxelmill", help="the folder of everything: data, logs, ports, credentials")
    parser.add_argument("--scale", default="", help="how many processes of a service, as `thumbnail=2 mesh=2`")
    parser.add_argument("--name", default="", help="the process whose log is shown, as `mesh-1`")
    parser.add_argument("--lock", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--report", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    try:
        return _do(given)
    except StackError as error:
        sys.stderr.write(f"{COMMAND}: {error}\n")
        return error.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read what is said here has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor can Python say its last words there
        return 141


def _do(given: argparse.Namespace) -> int:
    if not given.dir.strip():
        raise StackError("DIR is empty; give a folder, or leave it out", 2)
    folder = Folder(Path(os.path.abspath(given.dir)))  # noqa: PTH100 - as typed: a link stays a link in what is printed
    match given.command:
        case "up":
            return control.up(folder, given.scale)
        case "down":
            return control.down(folder)
        case "ps":
            return say.processes(folder)
        case "logs":
            return say.logs(folder, given.name)
        case _:
            return _supervise(folder, given.scale, given.lock, given.report)


def _supervise(folder: Folder, scale: str, lock: int, report: int) -> int:
    """Be the supervisor. `lock` is the folder's lock, held as long as this process lives; `report` leads to `up`."""
    os.umask(0o077)
    # The processes of the installation must hold neither.
    os.set_inheritable(lock, False)
    os.set_inheritable(report, False)
    told = os.fdopen(report, "w", buffering=1)

    def line(kind: str) -> Callable[[str], None]:
        def write(text: str) -> None:
            with contextlib.suppress(BrokenPipeError):  # whoever called `up` has gone; the services stay
                told.write(f"{kind} {text}\n")

        return write

    def ready() -> None:
        line("ready")("")
        with contextlib.suppress(BrokenPipeError):
            told.close()

    try:
        asyncio.run(Supervisor(folder, read_scale(scale), line("...")).run(ready))
    except StackError as error:
        line("failed")(f"{error.code} {error}")
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
