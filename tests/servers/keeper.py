"""Runs a server as long as a test run lasts: when the run's process ends, however it ends, so does the server.

usage: keeper.py WATCHED_PID FOLDER SIGNAL PROGRAM ARGUMENT...

The server's output goes to FOLDER/log, and FOLDER is removed at the end. SIGNAL is how the server is asked to end; what
does not end within seconds is killed. SIGTERM ends the keeper.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

PATIENCE_SECONDS = 5.0


def main(watched: int, folder: Path, goodbye: signal.Signals, command: list[str]) -> int:
    """Start the server and wait for the end of it, of the watched process or of patience."""
    asked, ask = os.pipe()
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    os.set_blocking(ask, False)
    signal.set_wakeup_fd(ask, warn_on_full_buffer=False)
    try:
        with (folder / "log").open("ab") as log:
            server = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
            )
        with contextlib.suppress(ProcessLookupError):  # it ended before we could look
            run = os.pidfd_open(watched)
            # A server that is only stopped (SIGSTOP) sends SIGCHLD too: it is kept, and goes on when it is told to.
            while not (
                run in select.select([run, asked], [], [])[0]
                or signal.SIGTERM in os.read(asked, 256)
                or server.poll() is not None
            ):
                pass
        if server.poll() is None:
            server.send_signal(goodbye)
            try:
                server.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
        return server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2]), signal.Signals[sys.argv[3]], sys.argv[4:]))
