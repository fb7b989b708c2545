"""Building the images of the services."""

from __future__ import annotations

import subprocess
import tempfile
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from containers import base, pip_settings
from containers.engines import ImagesError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containers.engines import Engine

ROOT = Path(__file__).parents[2]
SERVICES = ("ingest", "thumbnail", "segment", "mesh", "index", "gateway")
FROM_DEBIAN = "debian"
EXTRA = "totalsegmentator"
TORCHES = ("cuda", "cpu")


def tag_of(service: str, tag: str, torch: str | None = None) -> str:
    """Name an image as docker-compose.yml does; with a build of torch that of segment with TotalSegmentator."""
    return f"voxelmill/{service}:{tag}-{EXTRA}-{torch}" if torch else f"voxelmill/{service}:{tag}"


def build_images(
    engine: Engine, services: Sequence[str], tag: str, base_image: str | None, torch: str | None = None
) -> None:
    """Build them one after the other, and tell of each how large it is and how long it took.

    Parameters
    ----------
    torch
        `cuda` or `cpu`: with the model totalsegmentator, on that build of torch. None: without.

    Raises
    ------
    ImagesError
        If one cannot be built; those before it stand.
    """
    settings = pip_settings.read_settings()
    arguments = {}
    if base_image == FROM_DEBIAN:
        print("making a base from Debian's packages, if there is none yet", flush=True)
        arguments["BASE"] = base.make_base(engine)
    elif base_image:
        arguments["BASE"] = base_image
    if torch:
        arguments |= {"EXTRA": EXTRA, "TORCH": torch}
    with tempfile.TemporaryDirectory(prefix="voxelmill-build-") as name:
        secrets = pip_settings.write_secrets(settings, Path(name))
        for service in services:
            began = time.monotonic()
            image = tag_of(service, tag, torch)
            engine.build_image(
                image,
                ROOT / "services" / service / "Dockerfile",
                ROOT,
                arguments=arguments,
                labels=_labels(service),
                secrets=secrets,
                folders=pip_settings.local_folders(settings),
            )
            print(f"{image:45} {engine.size(image):>8}  {time.monotonic() - began:5.0f} s", flush=True)


def _labels(service: str) -> dict[str, str]:
    project = tomllib.loads((ROOT / "services" / service / "pyproject.toml").read_text())["project"]
    labels = {"org.opencontainers.image.version": str(project["version"])}
    try:
        revision = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return labels  # sources without git: an archive
    if revision.returncode == 0:
        labels["org.opencontainers.image.revision"] = revision.stdout.strip()
    return labels


def known_services(named: Sequence[str], torch: str | None = None) -> tuple[str, ...]:
    """Return the services that were named, or all; with a build of torch segment alone.

    Raises
    ------
    ImagesError
        If one of the names is no service, or has no use for torch.
    """
    unknown = [name for name in named if name not in SERVICES]
    if unknown:
        raise ImagesError(f"there is no service {unknown[0]!r}; write one of {', '.join(SERVICES)}", 2)
    if torch and set(named) - {"segment"}:
        raise ImagesError(f"--{EXTRA} is about segment's image alone; leave the other services out", 2)
    return tuple(named) or (("segment",) if torch else SERVICES)
