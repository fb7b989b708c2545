from __future__ import annotations

from voxelmill_index.service import build
from voxelmill_index.settings import IndexSettings
from voxelmill_shared.main import main as run


def main() -> None:
    """Be the process `voxelmill-index`."""
    run(build, IndexSettings, "voxelmill-index")


if __name__ == "__main__":
    main()
