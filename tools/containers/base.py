"""A base image from Debian's own packages, for machines that no registry of images is in reach of."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from containers.engines import LAST_LINES, ImagesError

if TYPE_CHECKING:
    from containers.engines import Engine

SUITE = "bookworm"
TAG = f"localhost/voxelmill-base:{SUITE}"
PACKAGES = ("python3", "python3-venv", "ca-certificates")
NOT_NEEDED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/cache", "var/lib/apt/lists")
DOCKERFILE = """FROM scratch
ADD base.tar /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
CMD ["python3"]
"""


def make_base(engine: Engine) -> str:
    """Make Debian with Python by debootstrap, if it is not there yet; return its tag.

    The mirror is `DEBIAN_MIRROR`, or Debian's own. Needs root.

    Raises
    ------
    ImagesError
        If debootstrap is missing or fails.
    """
    if engine.size(TAG) is not None:
        return TAG
    if shutil.which("debootstrap") is None:
        raise ImagesError("--base debian needs debootstrap; run: apt-get install debootstrap")
    if os.geteuid() != 0:
        raise ImagesError("--base debian needs root, for debootstrap; use sudo, or give --base the name of an image")
    with tempfile.TemporaryDirectory(prefix="voxelmill-base-") as name:
        folder = Path(name)
        root = folder / "root"
        mirror = os.environ.get("DEBIAN_MIRROR", "")  # without one debootstrap knows Debian's own
        done = subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root), *mirror.split()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            said = "\n".join(done.stdout.splitlines()[-LAST_LINES:])
            place = mirror or "Debian's mirror"
            raise ImagesError(f"{said}\ndebootstrap could not make the base from {place}; set DEBIAN_MIRROR to another")
        for path in NOT_NEEDED:
            shutil.rmtree(root / path, ignore_errors=True)
            (root / path).mkdir(parents=True)
        context = folder / "context"
        context.mkdir()
        with tarfile.open(context / "base.tar", "w") as archive:
            archive.add(root, arcname=".")
        (context / "Dockerfile").write_text(DOCKERFILE)
        engine.build_image(TAG, context / "Dockerfile", context, arguments={}, labels={}, secrets={}, folders=())
    return TAG
