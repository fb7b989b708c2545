"""The settings of the segment service."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads the annotation

from pydantic import Field, field_validator

from voxelmill_segment.devices import check_devices
from voxelmill_segment.equipment import DEFAULT_WEIGHTS, SegType
from voxelmill_shared.settings import SharedSettings


class SegmentSettings(SharedSettings):
    """What every service has, the device, and how many series are in hand at a time."""

    segment_device: str = Field(
        "auto", description="auto, cpu, cuda (every GPU that is visible), cuda:0,cuda:1 (these) or mps"
    )
    segment_concurrency: int = Field(
        1, ge=1, le=64, description="series that are computed at a time on a CPU; of several GPUs each computes one"
    )
    segment_ahead: int | None = Field(
        None,
        ge=0,
        le=8,
        description="series that are read or written while one is computed, for each device: 2 on a GPU, else 1; with 0"
        " everything is done one after the other, on a CPU in one child",
    )
    segment_spot: bool = Field(
        False, description="the machine may be taken away: SIGTERM hands back what is in hand at once"
    )
    segment_seg_type: SegType = Field(
        SegType.LABELMAP, description="type of segmentation.dcm: labelmap, or binary for viewers that do not know it"
    )
    weights: Path = Field(DEFAULT_WEIGHTS, description="the folder of the networks' weights")
    totalsegmentator_license: str = Field(
        "", description="a licence number, names of licences whose terms are accepted, or both, with commas between"
    )

    @field_validator("segment_seg_type", mode="before")
    @classmethod
    def _in_lower_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("segment_device")
    @classmethod
    def _known(cls, value: str) -> str:
        return check_devices(value)
