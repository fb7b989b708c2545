from __future__ import annotations

from voxelmill_ingest.triggers.service import build_process
from voxelmill_ingest.triggers.settings import IngestProcessSettings
from voxelmill_shared.main import main as run


def main() -> None:
    """Be the process `voxelmill-ingest`."""
    run(build_process, IngestProcessSettings, "voxelmill-ingest")


if __name__ == "__main__":
    main()
