from __future__ import annotations

from voxelmill_shared.main import main as run
from voxelmill_thumbnail.service import build
from voxelmill_thumbnail.settings import ThumbnailSettings


def main() -> None:
    """Be the process `voxelmill-thumbnail`."""
    run(build, ThumbnailSettings, "voxelmill-thumbnail")


if __name__ == "__main__":
    main()
