"""What the tests of whole runs share: series that differ in size, and a run that several tests look at."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from voxelmill_cli.phantom import PhantomPlan

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.command import Ended

USUAL = PhantomPlan(seed=7, rows=112, columns=112, slices=44, pixel_mm=3.4, slice_mm=7.0)
COARSE = PhantomPlan(seed=8, rows=64, columns=64, slices=24, pixel_mm=6.0, slice_mm=13.0)
"""It has all organs, and is quicker to run."""
SMALL = PhantomPlan(seed=1, rows=32, columns=32, slices=10, pixel_mm=12.0, slice_mm=30.0)
"""It has no lungs, and is quicker still."""


@dataclass(frozen=True)
class Finished:
    """A run that several tests look at. None of them may change its folders."""

    ended: Ended
    source: Path
    output: Path
    before: dict[str, str] = field(default_factory=dict)
    """The source's files and their digests, as they were."""

    def of(self, name: str) -> dict[str, Any]:
        """Give what the command said of the series with that folder of results."""
        (found,) = [one for one in self.ended.document["series"] if one["folder"] == str(self.output / name)]
        return found

    def copy(self, folder: Path) -> Path:
        """Copy the destination, to run into it again."""
        return shutil.copytree(self.output, folder, symlinks=True)
