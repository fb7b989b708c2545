"""What a worker has to compute with: a device, weights, licences. Its children are told by their environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from voxelmill_segment.devices import DEVICE_VARIABLE

_WEIGHTS = "VOXELMILL_WEIGHTS"
_LICENCES = "VOXELMILL_TOTALSEGMENTATOR_LICENSE"
DEFAULT_WEIGHTS = Path("voxelmill-data/weights")


@dataclass(frozen=True, slots=True)
class Equipment:
    """What one child has.

    Parameters
    ----------
    weights
        The folder of the networks' weights.
    device
        `cpu`, `cuda:0`, `mps`; `auto` where the child shall see for itself.
    licences
        See `SegmentSettings.totalsegmentator_license`.
    """

    weights: Path
    device: str = "auto"
    licences: str = ""

    @classmethod
    def of_environment(cls) -> Self:
        """Return what this process was told."""
        return cls(
            Path(os.environ.get(_WEIGHTS) or DEFAULT_WEIGHTS).absolute(),
            os.environ.get(DEVICE_VARIABLE) or "auto",
            os.environ.get(_LICENCES, ""),
        )

    def environment(self) -> dict[str, str]:
        """Return the variables that tell a child."""
        return {DEVICE_VARIABLE: self.device, _WEIGHTS: str(self.weights.absolute()), _LICENCES: self.licences}
