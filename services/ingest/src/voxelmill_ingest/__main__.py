from __future__ import annotations

from voxelmill_ingest.service import build
from voxelmill_ingest.settings import IngestSettings
from voxelmill_shared.main import main as run


def main() -> None:
    """Be the process `voxelmill-ingest`."""
    run(build, IngestSettings, "voxelmill-ingest")


if __name__ == "__main__":
    main()
