"""The programs that build images: docker with a running engine, podman, buildah."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

NAMES = ("docker", "podman", "buildah")
LAST_LINES = 40
RUNTIMES = ("crun", "runc")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


class ImagesError(Exception):
    """Images cannot be built or tried; the message names what, the reason and the next step.

    Attributes
    ----------
    code
        The exit code of a command that ends by it: 1 if something failed, 2 for wrong usage, 3 for what is missing.
    """

    def __init__(self, message: str, code: int = 3) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Engine:
    """One program that builds images.

    Attributes
    ----------
    name
        `docker`, `podman` or `buildah`.
    command
        The program with the options that come before its command.
    build
        Its command that builds, with the options that this machine needs.
    """

    name: str
    command: tuple[str, ...]
    build: tuple[str, ...]

    def build_image(
        self,
        tag: str,
        dockerfile: Path,
        context: Path,
        *,
        arguments: Mapping[str, str],
        labels: Mapping[str, str],
        secrets: Mapping[str, Path],
        folders: Sequence[Path],
    ) -> None:
        """Build one image.

        Parameters
        ----------
        folders
            Folders of this machine that are there under the same name while the image is built, and not in it.

        Raises
        ------
        ImagesError
            If the build fails; the message ends with what the engine said last.
        """
        if folders and self.name == "docker":
            raise ImagesError(
                f"pip is set here to look into {', '.join(map(str, folders))}, which docker cannot show to a build; "
                "use --engine podman or buildah, or let PIP_CONFIG_FILE name settings without folders",
                2,
            )
        command = [*self.command, *self.build, "--file", str(dockerfile), "--tag", tag]
        for name, value in arguments.items():
            command += ["--build-arg", f"{name}={value}"]
        for name in PROXIES:
            if self.name == "docker" and name in os.environ:
                command += ["--build-arg", name]  # the others hand them on by themselves
        for name, value in labels.items():
            command += ["--label", f"{name}={value}"]
        for name, path in secrets.items():
            command += ["--secret", f"id={name},src={path}"]
        for folder in folders:
            command += ["--volume", f"{folder}:{folder}:ro"]
        done = subprocess.run(
            [*command, str(context)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "DOCKER_BUILDKIT": "1"},
            check=False,
        )
        if done.returncode:
            said = "\n".join(done.stdout.splitlines()[-LAST_LINES:])
            raise ImagesError(f"{said}\n{self.name} could not build {tag}; its own words are above", 1)

    def size(self, tag: str) -> str | None:
        """The size of an image, as `492 MB`, or None if there is no such image."""
        if self.name == "buildah":
            done = _run(*self.command, "images", "--json", tag)
            return str(json.loads(done.stdout)[0]["size"]) if done.returncode == 0 else None
        done = _run(*self.command, "image", "inspect", "--format", "{{.Size}}", tag)
        return f"{int(done.stdout) / 1e6:.0f} MB" if done.returncode == 0 else None


def find_engine(wanted: str | None) -> Engine:
    """Return the engine of that name, or the first that works.

    Raises
    ------
    ImagesError
        If there is no engine of that name, or none works; the message tells for each what is missing.
    """
    if wanted and wanted not in NAMES:
        raise ImagesError(f"--engine {wanted}: write one of {', '.join(NAMES)}", 2)
    reasons = []
    for name in (wanted,) if wanted else NAMES:
        if shutil.which(name) is None:
            reasons.append(f"{name} is not installed")
            continue
        match name:
            case "docker":
                answer = _run(name, "version", "--format", "{{.Server.Version}}")
            case "podman":
                answer = _run(name, "info")
            case _:
                answer = _run(name, "images")
        if answer.returncode == 0:
            return _buildah() if name == "buildah" else Engine(name, (name,), _options(name))
        reasons.append(f"{name} is installed but does not answer ({_last(answer)})")
    raise ImagesError(
        f"nothing here builds images: {'; '.join(reasons)}. "
        "Start docker, or install podman or buildah (Debian: apt-get install buildah; it needs no engine)"
    )


def _options(name: str) -> tuple[str, ...]:
    # Docker's own format: the other one knows no health checks.
    return ("build",) if name == "docker" else ("build", "--format", "docker")


def _buildah() -> Engine:
    """Buildah as this machine can run it: without a runtime in a chroot, without overlays by copies."""
    command: tuple[str, ...] = ("buildah",)
    if "STORAGE_DRIVER" not in os.environ and not _mounts(command):
        command = ("buildah", "--storage-driver", "vfs")
        if not _mounts(command):
            raise ImagesError("buildah cannot mount a container here; run it as root, or by `buildah unshare`")
    options = ["bud", "--format", "docker"]
    if "BUILDAH_ISOLATION" not in os.environ and not any(map(shutil.which, RUNTIMES)):
        options += ["--isolation", "chroot", "--network", "host"]
    return Engine("buildah", command, tuple(options))


def _mounts(command: tuple[str, ...]) -> bool:
    made = _run(*command, "from", "scratch")
    if made.returncode:
        return False
    try:
        return _run(*command, "mount", made.stdout.strip()).returncode == 0
    finally:
        _run(*command, "rm", made.stdout.strip())


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)


def _last(answer: subprocess.CompletedProcess[str]) -> str:
    return ((answer.stderr or answer.stdout).strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
