from __future__ import annotations

from voxelmill_cli.app import main

if __name__ == "__main__":
    main()
