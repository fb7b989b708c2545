"""One service in its image, run by buildah in a chroot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from containers.engines import ImagesError
from stack.ports import get

if TYPE_CHECKING:
    from collections.abc import Mapping

    from containers.engines import Engine

LAST_CHARACTERS = 3000
SCRATCH = "scratch"


class Container:
    """A working container of an image, and the process in it.

    Buildah does not start the image's entrypoint by itself, so that is read from the image. The user is the image's.
    """

    def __init__(self, engine: Engine, service: str, image: str, port: int) -> None:
        self.service = service
        self.port = port
        self._engine = engine
        self._name = self._do("from", "--name", f"voxelmill-check-{service}-{os.getpid()}", image)
        self._config: dict[str, Any] = json.loads(self._do("inspect", self._name))["Docker"]["config"]
        self._log = tempfile.NamedTemporaryFile(prefix=f"voxelmill-{service}-", suffix=".log")  # noqa: SIM115 - `remove`
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0

    def start(self, environment: Mapping[str, str], folders: Mapping[Path, str] | None = None) -> None:
        """Start the service; the image's own variables hold where none of the same name is given.

        Folders of this machine are there read-only, under the names that are given.
        """
        command = [*self._engine.command, "run", "--isolation=chroot", "--network=host"]
        for name, value in environment.items():
            command += ["--env", f"{name}={value}"]
        for folder, name in (folders or {}).items():
            command += ["--volume", f"{folder}:{name}:ro"]
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            [*command, self._name, "--", *self._config["Entrypoint"]],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def wait_until_ready(self, seconds: float) -> float:
        """Return how many seconds it took until the service answered that it is ready, and its health check agreed.

        Raises
        ------
        ImagesError
            If the service ends or takes longer than `seconds`.
        """
        while get(self.port, "/readyz")[0] != 200:
            if not self.is_alive() or time.monotonic() - self._began > seconds:
                raise ImagesError(f"{self.said()}\n{self.service} did not become ready; its log is above", 1)
            time.sleep(0.02)
        took = time.monotonic() - self._began
        check = self._config["Healthcheck"]["Test"]
        self._do(
            "run",
            "--isolation=chroot",
            "--network=host",
            "--env",
            f"VOXELMILL_PORT={self.port}",
            self._name,
            "--",
            *check[1:],
        )
        return took

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def memory(self) -> int:
        """Bytes in memory of the service, its child process apart."""
        return int(self._service().memory_info().rss)

    def user(self) -> int:
        """The number of the user that the service runs as."""
        return int(self._service().uids().real)

    def written_outside_scratch(self) -> list[str]:
        """Return what the service's user owns that is not in /scratch. If anything, it needs more than /scratch."""
        root = Path(self._do("mount", self._name))
        user = self.user()
        found = []
        for folder, folders, files in os.walk(root):
            folders[:] = [name for name in folders if Path(folder) / name != root / SCRATCH]
            paths = (Path(folder) / name for name in (*folders, *files))
            found += [str(path.relative_to(root)) for path in paths if path.lstat().st_uid == user]
        return found

    def stop(self, seconds: float) -> int:
        """Send SIGTERM to the service and return its exit code."""
        self._service().send_signal(signal.SIGTERM)
        if self._process is None:
            raise ImagesError(f"{self.service} was never started")
        return self._process.wait(seconds)

    def said(self) -> str:
        """The end of its log."""
        return f"{self.service}: {Path(self._log.name).read_text(errors='replace')[-LAST_CHARACTERS:]}"

    def remove(self) -> None:
        """End the service, whatever it is doing, and remove the container and the log."""
        if self._process is not None and self._process.poll() is None:
            for process in psutil.Process(self._process.pid).children(recursive=True):
                process.kill()
            self._process.kill()
            self._process.wait()
        subprocess.run([*self._engine.command, "rm", self._name], capture_output=True, check=False)
        self._log.close()

    def _service(self) -> psutil.Process:
        """The service's own process: the first one below buildah's whose program is a Python."""
        if self._process is not None:
            for process in psutil.Process(self._process.pid).children(recursive=True):
                if process.name().startswith(("python", "voxelmill")):
                    return process
        raise ImagesError(f"{self.said()}\n{self.service} does not run; its log is above", 1)

    def _do(self, *command: str) -> str:
        done = subprocess.run([*self._engine.command, *command], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ImagesError(f"buildah {command[0]}: {(done.stderr + done.stdout).strip()}", 1)
        return done.stdout.strip()
