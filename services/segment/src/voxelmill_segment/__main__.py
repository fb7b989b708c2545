from __future__ import annotations

from voxelmill_segment.service import build
from voxelmill_segment.settings import SegmentSettings
from voxelmill_shared.main import main as run


def main() -> None:
    """Be the process `voxelmill-segment`."""
    run(build, SegmentSettings, "voxelmill-segment")


if __name__ == "__main__":
    main()
