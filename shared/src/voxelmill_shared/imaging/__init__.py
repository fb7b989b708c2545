"""Reading pixels: volumes with their geometry, frames with what is needed to show them, label maps.

Needs the extra `imaging`. The codes of `UnsupportedSeriesError` are listed in `reasons`.
"""

from __future__ import annotations

from voxelmill_shared.imaging.frames import Display, Frame, Window, WindowFunction, decode_frames, read_frames
from voxelmill_shared.imaging.image import DicomImage
from voxelmill_shared.imaging.labelmap import write_label_map
from voxelmill_shared.imaging.nifti import read_nifti, read_nifti_volumes
from voxelmill_shared.imaging.opening import open_image
from voxelmill_shared.imaging.reasons import Unsupported
from voxelmill_shared.imaging.series import (
    LeftOut,
    SeriesLayout,
    SeriesLayouts,
    SeriesVolumes,
    lay_out,
    lay_out_volumes,
    open_images,
    read_series,
    read_volumes,
)
from voxelmill_shared.imaging.volume import Volume, axis_codes, looks_like_ct

__all__ = [
    "DicomImage",
    "Display",
    "Frame",
    "LeftOut",
    "SeriesLayout",
    "SeriesLayouts",
    "SeriesVolumes",
    "Unsupported",
    "Volume",
    "Window",
    "WindowFunction",
    "axis_codes",
    "decode_frames",
    "lay_out",
    "lay_out_volumes",
    "looks_like_ct",
    "open_image",
    "open_images",
    "read_frames",
    "read_nifti",
    "read_nifti_volumes",
    "read_series",
    "read_volumes",
    "write_label_map",
]
