"""One private server per test run, also where pytest-xdist runs it in several processes."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stack.ports import answers, free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pytest

__all__ = ["PrivateServer", "ServerEndedError", "answers", "free_ports", "fresh_folder", "one_per_run", "remove"]

KEEPER = Path(__file__).with_name("keeper.py")
READY_SECONDS = 60.0


class ServerEndedError(Exception):
    """The server ended before it was ready; the message is the end of what it said."""


class PrivateServer:
    """A server in a folder of its own, kept by a keeper."""

    def __init__(self, program: Sequence[str], folder: Path, *, goodbye: str = "SIGTERM") -> None:
        self.folder = folder
        # Under xdist the worker that starts the server may end before the others: the run is the parent then.
        watched = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
        self._keeper = subprocess.Popen(
            [sys.executable, str(KEEPER), str(watched), str(folder), goodbye, *program], start_new_session=True
        )

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Wait for the server's own sign that it is ready.

        Raises
        ------
        ServerEndedError
            If the server ended, or was not ready in time.
        """
        until = time.monotonic() + READY_SECONDS
        said = ""
        while self._keeper.poll() is None:
            if ready():
                return
            if time.monotonic() > until:
                self.stop()
                break
            log = self.folder / "log"
            said = log.read_text(errors="replace")[-2000:] if log.exists() else said
            time.sleep(0.05)
        raise ServerEndedError(f"it said: {said}")

    def stop(self) -> None:
        """End the server, and wait until it is gone."""
        self._keeper.terminate()
        self._keeper.wait()

    def let_go(self) -> None:
        """Leave the server to its keeper, who ends it with the run."""
        self._keeper.returncode = 0  # so that Popen does not complain about a child that lives on


@contextmanager
def one_per_run(
    factory: pytest.TempPathFactory, name: str, start: Callable[[], tuple[PrivateServer, dict[str, str]]]
) -> Iterator[dict[str, str]]:
    """Give the run's server of that name, started by whoever comes first."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        server, facts = start()
        try:
            yield facts
        finally:
            server.stop()
        return
    shared = factory.getbasetemp().parent
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = shared / f"{name}.json"
        if known.exists():
            facts = json.loads(known.read_text())
        else:
            server, facts = start()
            server.let_go()
            known.write_text(json.dumps(facts))
    yield facts


def fresh_folder(name: str) -> Path:
    """Make a folder for a server; its keeper removes it."""
    return Path(tempfile.mkdtemp(prefix=f"voxelmill-{name}-"))


def remove(folder: Path) -> None:
    """Remove a folder of a server that never started."""
    shutil.rmtree(folder, ignore_errors=True)
