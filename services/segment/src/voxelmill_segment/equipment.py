"""What a worker has to compute with: a device, weights, licences. Its children are told by their environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from voxelmill_segment.devices import DEVICE_VARIABLE

_WEIGHTS = "VOXELMILL_WEIGHTS"
_LICENCES = "VOXELMILL_TOTALSEGMENTATOR_LICENSE"
_SEG_TYPE = "VOXELMILL_SEGMENT_SEG_TYPE"
DEFAULT_WEIGHTS = Path("voxelmill-data/weights")


class SegType(StrEnum):
    """The Segmentation Type of a DICOM Segmentation (PS3.3 C.8.20.2)."""

    LABELMAP = "labelmap"
    BINARY = "binary"


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
    seg_type
        See `SegmentSettings.segment_seg_type`.
    """

    weights: Path
    device: str = "auto"
    licences: str = ""
    seg_type: SegType = SegType.LABELMAP

    @classmethod
    def of_environment(cls) -> Self:
        """Return what this process was told."""
        return cls(
            Path(os.environ.get(_WEIGHTS) or DEFAULT_WEIGHTS).absolute(),
            os.environ.get(DEVICE_VARIABLE) or "auto",
            os.environ.get(_LICENCES, ""),
            SegType((os.environ.get(_SEG_TYPE) or SegType.LABELMAP).lower()),
        )

    def environment(self) -> dict[str, str]:
        """Return the variables that tell a child."""
        return {
            DEVICE_VARIABLE: self.device,
            _WEIGHTS: str(self.weights.absolute()),
            _LICENCES: self.licences,
            _SEG_TYPE: str(self.seg_type),
        }
