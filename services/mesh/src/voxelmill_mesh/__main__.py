from __future__ import annotations

from voxelmill_mesh.service import build
from voxelmill_mesh.settings import MeshSettings
from voxelmill_shared.main import main as run


def main() -> None:
    """Be the process `voxelmill-mesh`."""
    run(build, MeshSettings, "voxelmill-mesh")


if __name__ == "__main__":
    main()
