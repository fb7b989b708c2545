"""This machine's settings for pip, in a form that a build can be given without leaving a trace in the image."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from containers.engines import ImagesError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SOURCES = ("index-url", "extra-index-url", "find-links")
HANDED_ON = (*SOURCES, "no-index", "trusted-host", "proxy", "timeout", "default-timeout", "retries")
CERTIFICATES = "/run/secrets/ca.crt"
"""Where the Dockerfiles let a build find the certificates."""


def read_settings() -> dict[str, str]:
    """Return what `pip config list` tells, the environment's word last, without the sections.

    Raises
    ------
    ImagesError
        If pip cannot be asked.
    """
    done = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise ImagesError(f"{sys.executable} -m pip config list: {said}; mend pip's settings, or run tools/setup dev")
    sections: dict[str, dict[str, str]] = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        sections.setdefault(section, {})[key] = str(ast.literal_eval(value))
    found: dict[str, str] = {}
    for section in ("global", "install", ":env:"):  # as pip weighs them
        found |= sections.get(section, {})
    return found


def certificates(settings: Mapping[str, str]) -> Path | None:
    """Return the file of certificates that pip, or else everything here, trusts; None if nobody named one."""
    for named in (settings.get("cert"), os.environ.get("SSL_CERT_FILE"), os.environ.get("REQUESTS_CA_BUNDLE")):
        if named and Path(named).is_file():
            return Path(named)
    return None


def local_folders(settings: Mapping[str, str]) -> list[Path]:
    """Return the folders of this machine that the settings name.

    An index lies beside the files that it names (`../../files/x.whl`), so it comes with the folder above it.
    """
    found: dict[Path, None] = {}
    for key in SOURCES:
        for word in settings.get(key, "").split():
            parts = urlsplit(word)
            if parts.scheme == "file" or word.startswith("/"):
                path = Path(unquote(parts.path))
                folder = path if key == "find-links" else path.parent
                if folder.is_dir() and len(folder.parts) > 1:
                    found[folder] = None
    return _outermost(found)


def _outermost(folders: Iterable[Path]) -> list[Path]:
    chosen: list[Path] = []
    for folder in sorted(folders):
        if not any(folder.is_relative_to(other) for other in chosen):
            chosen.append(folder)
    return chosen


def write_secrets(settings: Mapping[str, str], folder: Path) -> dict[str, Path]:
    """Write what a build is given into a folder, readable by the caller alone; return the files by their ids."""
    handed = {key: settings[key] for key in HANDED_ON if key in settings}
    secrets = {}
    trusted = certificates(settings)
    if trusted is not None:
        secrets["ca.crt"] = folder / "ca.crt"
        shutil.copyfile(trusted, secrets["ca.crt"])
        handed["cert"] = CERTIFICATES
    if handed:
        secrets["pip.conf"] = folder / "pip.conf"
        lines = (f"{key} = {' '.join(value.split())}\n" for key, value in handed.items())
        secrets["pip.conf"].write_text("[global]\n" + "".join(lines))
    for path in secrets.values():
        path.chmod(0o600)
    return secrets
