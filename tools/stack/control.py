"""Starting the supervisor and ending it: what `make up` and `make down` do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from stack import say
from stack.folder import explained, read_json
from stack.installation import names_of, read_scale
from stack.processes import Process, boot, wait
from stack.program import StackError
from stack.supervisor import end_recorded

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from stack.folder import Folder

OTHERS_SECONDS = 240.0
"""How long `up` waits for another `up` that is at work on the folder."""
APPEAR_SECONDS = 10.0


def up(folder: Folder, scale: str) -> int:
    """Start everything, unless it runs already; return when all of it is ready.

    Raises
    ------
    StackError
        If something does not start.
    """
    wanted = read_scale(scale)
    folder.make()
    until = time.monotonic() + OTHERS_SECONDS
    waits = False
    while (lock := folder.lock()) is None:
        state = read_json(folder.state)
        if state.get("phase") == "ready" and _supervisor(folder) is not None:
            say.line("Voxelmill runs already.")
            if scale.strip() and state["scale"] != wanted:
                running = " ".join(f"{name}={count}" for name, count in state["scale"].items())
                say.line(f"It runs with SCALE={running!r}; to change that: make down, then make up.")
            say.facts(folder)
            return 0
        if time.monotonic() > until:
            raise StackError(f"{folder.root}: another process has been starting or ending it for {OTHERS_SECONDS:g} s")
        if not waits:
            say.line("another `make up` or `make down` is at work here; waiting for it")
            waits = True
        time.sleep(0.1)
    with lock:
        began = time.monotonic()
        supervisor, report = _start(folder, scale, lock)
    with report:
        try:
            _follow(report)
        except KeyboardInterrupt:
            say.line("interrupted: ending what was started")
            supervisor.terminate()
            supervisor.wait()
            raise
    say.line(f"ready after {time.monotonic() - began:.1f} s")
    say.facts(folder)
    supervisor.returncode = 0  # so that Popen does not complain about a child that lives on
    return 0


def _start(folder: Folder, scale: str, lock: TextIO) -> tuple[subprocess.Popen[bytes], TextIO]:
    """Start the supervisor in a session of its own, and hand it the lock."""
    reader, writer = os.pipe()
    descriptors = (lock.fileno(), writer)
    try:
        with (folder.logs / "supervisor.log").open("ab") as log:
            supervisor = subprocess.Popen(
                [
                    *(sys.executable, "-m", "stack", "supervise", f"--dir={folder.root}", f"--scale={scale}"),
                    *(f"--lock={descriptors[0]}", f"--report={descriptors[1]}"),
                ],
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=descriptors,
                start_new_session=True,
            )
    except OSError as error:
        os.close(reader)
        raise explained(error, folder.root) from None
    finally:
        os.close(writer)
    return supervisor, os.fdopen(reader)


def _follow(report: TextIO) -> None:
    """Print how far the supervisor is, until everything is ready."""
    for text in report:
        kind, _, rest = text.rstrip("\n").partition(" ")
        match kind:
            case "ready":
                return
            case "failed":
                code, _, reason = rest.partition(" ")
                raise StackError(reason, int(code))
            case _:
                say.line(rest)
    raise StackError("the supervisor ended before everything was ready; see supervisor.log in the folder `logs`")


def down(folder: Folder) -> int:
    """End everything, and return when no process is left; the data stays.

    Raises
    ------
    StackError
        If a process cannot be ended.
    """
    if not folder.root.is_dir():
        say.line(f"nothing runs: there is no {say.short(folder.root)}")
        return 0
    began = time.monotonic()
    lock = folder.lock()
    ran = lock is None
    if lock is None:
        _end_supervisor(folder)
        lock = folder.lock()
        if lock is None:
            raise StackError(f"{folder.root}: another `make up` has begun there; run make down again")
    with lock:
        left = [process for process in folder.started() if process.family()]
        if left:
            say.line(f"ending what a killed supervisor had left: {', '.join(process.name for process in left)}")
            _permitted(lambda: end_recorded(left), folder)
        elif not ran:
            say.line(f"nothing runs in {say.short(folder.root)}")
            return 0
        state = read_json(folder.state)
    services = names_of(state.get("scale", {}))
    bad = [
        f"{entry['name']} with {entry['code']}"
        for entry in state.get("processes", [])
        if entry["code"] and entry["name"] in services
    ]
    if bad:
        say.line(f"not every service ended in good order: {', '.join(bad)}; see {say.short(folder.logs)}")
    say.line(f"down after {time.monotonic() - began:.1f} s; the data stays in {say.short(folder.data)}")
    return 0


def _end_supervisor(folder: Folder) -> None:
    """Ask the supervisor to end everything, wait, and kill it if it does not."""
    until = time.monotonic() + APPEAR_SECONDS
    while (supervisor := _supervisor(folder)) is None:
        if time.monotonic() > until:
            raise StackError(f"{folder.root}: in use by a process that does not say who it is; try again")
        if (lock := folder.lock()) is not None:  # it ended by itself
            lock.close()
            return
        time.sleep(0.1)
    say.line("ending the services, which finish or hand back what they have in hand, then the servers")
    _permitted(lambda: os.kill(supervisor.pid, signal.SIGTERM), folder)
    patience = float(read_json(folder.state).get("patience", APPEAR_SECONDS)) + APPEAR_SECONDS
    if not wait([supervisor.pid], patience):
        say.line(f"the supervisor did not end in {patience:g} s; killing it")
        supervisor.kill()


def _supervisor(folder: Folder) -> Process | None:
    """Return the supervisor that lives, if it has said who it is."""
    state = read_json(folder.state)
    if state.get("boot") != boot():
        return None
    supervisor = Process(**state["supervisor"])
    return supervisor if supervisor.is_alive() else None


def _permitted(act: Callable[[], None], folder: Folder) -> None:
    try:
        act()
    except ProcessLookupError:
        return  # it ended by itself
    except PermissionError:
        raise StackError(
            f"{folder.root}: its processes belong to another user; let that user run make down", 2
        ) from None
