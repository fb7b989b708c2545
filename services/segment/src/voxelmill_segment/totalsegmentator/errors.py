"""What the model raises, apart from the modules that raise it.

Those load torch. An error is read in the service's own process too, which has no use for that.
"""

from __future__ import annotations

from voxelmill_segment.segmenter import ModelRefusedError
from voxelmill_shared.errors import NotEquippedError


class DeviceMissingError(NotEquippedError):
    """The device that the settings name is not there."""


class DamagedWeightsError(NotEquippedError):
    """A network is there and cannot be loaded."""


class NotFiniteError(ModelRefusedError):
    """A network answered with infinities or what is no number: no label can be told from that."""


class LibraryRefusedError(ModelRefusedError):
    """The TotalSegmentator package ended the work for a reason of its own."""
