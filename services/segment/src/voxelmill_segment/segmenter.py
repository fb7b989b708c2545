"""What a segmentation model is to the rest of the service, and which models there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from voxelmill_shared.errors import NotBuiltError
from voxelmill_shared.plan import ModelName

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from voxelmill_segment.labels import Segment
    from voxelmill_shared.imaging.volume import Volume
    from voxelmill_shared.plan import Plan


@dataclass(frozen=True, slots=True)
class LabelMap:
    """A label for every voxel of a volume.

    Parameters
    ----------
    labels
        uint8 (slices, rows, columns), 0 where no segment is.
    affine
        4x4, (column, row, slice) index to LPS millimetres: that of the volume.
    segments
        What was looked for, in order of number. A segment that was not found has no voxels.
    warnings
        One line each: what the model met and how it answered.
    """

    labels: npt.NDArray[np.uint8]
    affine: npt.NDArray[np.float64]
    segments: tuple[Segment, ...]
    warnings: tuple[str, ...] = ()


class Segmenter(Protocol):
    """A segmentation model. `revision` changes whenever the same input would give another label map."""

    @property
    def name(self) -> str:
        """The model's name, `threshold`."""

    @property
    def revision(self) -> str:
        """The revision of the method."""

    def segment(self, volume: Volume, plan: Plan, report: Callable[[str], None]) -> LabelMap:
        """Label the segments that the plan's organ group asks for.

        Parameters
        ----------
        volume
            The series.
        plan
            What is asked for.
        report
            Is told the name of each step as it begins.

        Raises
        ------
        NotApplicableError
            If the model has no meaning for this volume.
        """


def open_segmenter(plan: Plan) -> Segmenter:
    """Return the model that a plan names.

    Raises
    ------
    NotBuiltError
        If the model is not part of this version.
    """
    if plan.model is ModelName.TOTALSEGMENTATOR:
        raise NotBuiltError(
            "the model totalsegmentator comes with a later version of Voxelmill; --model threshold works now"
        )
    from voxelmill_segment.threshold import ThresholdSegmenter  # noqa: PLC0415 - only the model in use is compiled

    return ThresholdSegmenter()
