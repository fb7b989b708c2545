"""nnU-Net's preprocessing of one image in memory: crop to what is not zero, normalise, resample.

As `DefaultPreprocessor.run_case_npy`, without the mask that it fills the holes of and resamples: no network of
TotalSegmentator normalises within a mask, and filling holes does not change a bounding box. For a network that does,
and for another preprocessor, nnU-Net's own is called.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Input:
    """What a network sees, and how its answer gets back onto the image's grid.

    Parameters
    ----------
    data
        float32 (channels, …), contiguous, in the network's order of axes.
    properties
        As nnU-Net's export wants them.
    backward
        The order of axes that undoes the network's.
    spacing
        Millimetres along the image's axes, in the network's order.
    """

    data: npt.NDArray[np.float32]
    properties: dict[str, Any]
    backward: tuple[int, ...]
    spacing: tuple[float, ...] = field(default=())

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that labels must have to be restored: that of the cropped image before it was resampled."""
        return tuple(self.properties["shape_after_cropping_and_before_resampling"])

    def restore(self, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Put labels of the cropped image where they belong in the whole, in the image's order of axes."""
        box = self.properties["bbox_used_for_cropping"]
        whole = labels
        if labels.shape != tuple(self.properties["shape_before_cropping"]):
            whole = np.zeros(self.properties["shape_before_cropping"], np.uint8)
            whole[tuple(slice(first, last) for first, last in box)] = labels
        return whole.transpose(self.backward)


def preprocess(nnunet: Any, image: npt.NDArray[np.float32], spacing: Sequence[float]) -> Input:
    """Make an image what a network was trained on.

    Parameters
    ----------
    nnunet
        A loaded `nnUNetPredictor`.
    image
        float32 (channels, z, y, x), contiguous. It is not changed.
    spacing
        Millimetres along z, y, x.
    """
    plans, configuration = nnunet.plans_manager, nnunet.configuration_manager
    forward = plans.transpose_forward
    backward = tuple(plans.transpose_backward)
    preprocessor = configuration.preprocessor_class(verbose=False)
    turned = tuple(float(spacing[axis]) for axis in forward)
    if type(preprocessor) is not DefaultPreprocessor or any(configuration.use_mask_for_norm):
        data, _, properties = preprocessor.run_case_npy(
            image, None, {"spacing": list(spacing)}, plans, configuration, nnunet.dataset_json
        )
        return Input(np.ascontiguousarray(data, np.float32), properties, backward, turned)
    # A copy of the whole in its own layout, as nnU-Net makes one: a mean of float32 depends on the order of its sums.
    data = image.copy().transpose([0, *(axis + 1 for axis in forward)])
    whole = data.shape[1:]
    box = nonzero_box(data)
    data = data[(slice(None), *(slice(first, last) for first, last in box))]
    properties = {
        "spacing": list(spacing),
        "shape_before_cropping": whole,
        "bbox_used_for_cropping": box,
        "shape_after_cropping_and_before_resampling": data.shape[1:],
    }
    shape = compute_new_shape(data.shape[1:], turned, configuration.spacing)
    data = preprocessor._normalize(  # noqa: SLF001 - which normalisation it is, its plans say
        data, [None] * len(data), configuration, plans.foreground_intensity_properties_per_channel
    )
    data = configuration.resampling_fn_data(data, shape, turned, configuration.spacing)
    return Input(np.ascontiguousarray(data, np.float32), properties, backward, turned)


def nonzero_box(data: npt.NDArray[np.float32]) -> list[list[int]]:
    """Return first and last + 1 by axis of what is not zero in any channel; the whole where all is zero."""
    box = []
    for axis in range(1, data.ndim):
        planes = np.moveaxis(data, axis, 0)
        filled = [bool(np.any(plane)) for plane in (planes[0], planes[-1])]
        if all(filled):  # as in nearly every CT: nothing more to look for along this axis
            box.append([0, len(planes)])
            continue
        found = np.flatnonzero([bool(np.any(plane)) for plane in planes])
        if not len(found):
            return [[0, n] for n in data.shape[1:]]
        box.append([int(found[0]), int(found[-1]) + 1])
    return box
