"""The command behind `make images` and `make images-check`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from containers import build
from containers.engines import ImagesError, find_engine

COMMAND = "voxelmill images"


def main() -> int:
    """Build or try the images; return the exit code."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("services", nargs="*", metavar="SERVICE", help="which ones; all if none is named")
    parser.add_argument("--engine", default="", help="docker, podman or buildah; else the first that works")
    parser.add_argument("--tag", default="dev", help="the images' tag")
    parser.add_argument("--base", default="", help="another base image; `debian`: made here by debootstrap")
    parser.add_argument(
        f"--{build.EXTRA}", choices=build.TORCHES, help="segment's image with that model, on that build of torch"
    )
    parser.add_argument("--weights", type=Path, help="with --check: the weights of that model, a folder")
    parser.add_argument("--check", action="store_true", help="run every service in its image, on real servers")
    given = parser.parse_args()
    try:
        services = build.known_services(given.services, given.totalsegmentator)
        if given.check:
            from containers import check  # noqa: PLC0415 - it needs what developing needs, building does not

            check.check_images(given.tag, given.totalsegmentator, given.weights)
        else:
            engine = find_engine(given.engine or None)
            build.build_images(engine, services, given.tag, given.base or None, given.totalsegmentator)
    except ImagesError as error:
        sys.stderr.write(f"{COMMAND}: {error}\n")
        return error.code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
