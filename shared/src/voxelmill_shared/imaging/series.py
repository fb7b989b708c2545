"""From the files of a DICOM series to a volume, or to a clear reason why there is none."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from voxelmill_shared.imaging.decoding import Stored, decode, decoding_threads
from voxelmill_shared.imaging.frames import modality_transform_of
from voxelmill_shared.imaging.geometry import FramePlane, SliceStack, plane_of, stack
from voxelmill_shared.imaging.image import DicomImage, open_image
from voxelmill_shared.imaging.reasons import Unsupported
from voxelmill_shared.imaging.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from voxelmill_shared.imaging.transform import ModalityTransform, Padding, Values

MAX_VOXELS = 1 << 31
"""The largest volume that is read: 4 GiB of int16."""

_DERIVED = {
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "a label map segmentation",
    "1.2.840.10008.5.1.4.1.1.30": "a parametric map",
    "1.2.840.10008.5.1.4.1.1.481.2": "a dose",
    "1.2.840.10008.5.1.4.1.1.77.1.6": "a slide microscopy image",
}


@dataclass(frozen=True, eq=False)
class SeriesLayout:
    """A series whose geometry makes a volume; its pixels are still to be decoded.

    `transforms` and `paddings` are per slice, in the order of the stack. `frame_values` may be called from several
    threads.
    """

    images: tuple[DicomImage, ...]
    stack: SliceStack
    transforms: tuple[ModalityTransform, ...]
    paddings: tuple[Padding | None, ...]
    modality: str
    frame_of_reference_uid: str
    warnings: tuple[str, ...]

    @cached_property
    def slices_of(self) -> dict[int, list[int]]:
        """The slices that come from each image; an image that is a copy of another has none."""
        slices: dict[int, list[int]] = {number: [] for number in range(len(self.images))}
        for k, plane in enumerate(self.stack.planes):
            slices[plane.image].append(k)
        return slices

    def frame_values(self, slice_: int, stored: Stored) -> Values:
        """Turn the stored values of a slice into the modality's units."""
        values = self.transforms[slice_].apply(stored)
        padding = self.paddings[slice_]
        if padding is not None and self.modality == "CT":
            values = padding.air(stored, values)
        return values

    def volume(self, slices: list[Values | None]) -> Volume:
        """Stack the slices' values (in the order of the stack) into a volume. Empties the list to spare memory."""
        whole = all(values is not None and values.dtype == np.int16 for values in slices)
        first = self.images[0]
        voxels = np.empty((len(slices), first.rows, first.columns), np.int16 if whole else np.float32)
        for k, values in enumerate(slices):
            voxels[k] = values
            slices[k] = None
        return Volume(
            voxels=voxels,
            affine=self.stack.affine,
            modality=self.modality,
            frame_of_reference_uid=self.frame_of_reference_uid,
            instance_order=tuple(plane.image for plane in self.stack.planes),
            frame_order=tuple(plane.frame for plane in self.stack.planes),
            warnings=(*self.warnings, *self.stack.warnings),
        )


@dataclass(frozen=True, eq=False)
class SeriesVolumes:
    """The volumes of a series, in an order that does not depend on that of the files."""

    volumes: tuple[Volume, ...]


def read_volumes(sources: Sequence[Path | bytes]) -> SeriesVolumes:
    """Read the files of one series, or their bytes, into the volumes that it is made of.

    Raises
    ------
    UnsupportedSeriesError
        If there is none.
    """
    return SeriesVolumes((read_series(sources),))


def read_series(paths: Sequence[Path | bytes]) -> Volume:
    """Read the files of one series, classic or Enhanced multi-frame, into a volume.

    Parameters
    ----------
    paths
        The files, in any order.

    Raises
    ------
    UnsupportedSeriesError
        With a code of `reasons.Unsupported` and a line that names the file or the place. Never a wrong volume.
    """
    with ThreadPoolExecutor(decoding_threads()) as pool:
        layout = lay_out([open_image(path) for path in paths])

        def values_of(number: int) -> list[tuple[int, Values]]:
            image, slices = layout.images[number], layout.slices_of[number]
            frames = [layout.stack.planes[k].frame for k in slices]
            values = []
            for k, frame, encoded in zip(slices, frames, image.encoded(frames) if frames else (), strict=True):
                stored, _ = decode(image, frame, encoded)
                values.append((k, layout.frame_values(k, stored)))
            return values

        slices: list[Values | None] = [None] * len(layout.stack.planes)
        for decoded in pool.map(values_of, range(len(layout.images))):
            for k, values in decoded:
                slices[k] = values
    return layout.volume(slices)


def lay_out(images: Sequence[DicomImage]) -> SeriesLayout:
    """Check that images make one volume and find its geometry, without decoding a pixel.

    Raises
    ------
    UnsupportedSeriesError
        If they do not.
    """
    if not images:
        raise Unsupported.TOO_FEW_SLICES.error("there are no images")
    _check_kind(images)
    uid, warnings = _frame_of_reference(images)
    planes = [plane_of(image, n, frame) for n, image in enumerate(images) for frame in range(image.frames)]
    if len(planes) * images[0].rows * images[0].columns > MAX_VOXELS:
        raise Unsupported.IMPLAUSIBLE_SIZE.error(
            f"{len(planes)} slices of {images[0].rows} x {images[0].columns} are more voxels than are read"
        )

    def same_content(one: FramePlane, other: FramePlane) -> bool:
        return _content(images[one.image], one.frame) == _content(images[other.image], other.frame)

    stacked = stack(planes, same_content)
    transforms = tuple(modality_transform_of(images[plane.image], plane.frame) for plane in stacked.planes)
    modality = images[0].text("Modality")
    if modality == "CT":
        warnings += _about_units(images)
    return SeriesLayout(
        images=tuple(images),
        stack=stacked,
        transforms=transforms,
        paddings=tuple(images[plane.image].padding for plane in stacked.planes),
        modality=modality,
        frame_of_reference_uid=uid,
        warnings=tuple(warnings),
    )


def _check_kind(images: Sequence[DicomImage]) -> None:
    for image in images:
        derived = _DERIVED.get(image.text("SOPClassUID"))
        if derived:
            raise Unsupported.DERIVED_OBJECT.error(f"{image.name}: it is {derived}, not an image series")
        if image.samples != 1 or not image.photometric.startswith("MONOCHROME"):
            raise Unsupported.COLOUR_IMAGES.error(f"{image.name}: it is in colour ({image.photometric})")
    for keyword in ("SeriesInstanceUID", "Modality"):
        values = {image.text(keyword) for image in images}
        if len(values) > 1:
            raise Unsupported.MIXED_SERIES.error(f"the files have {len(values)} different values of {keyword}")
    sizes = Counter((image.rows, image.columns) for image in images)
    if len(sizes) > 1:
        text = ", ".join(f"{count} of {rows} x {columns}" for (rows, columns), count in sizes.most_common())
        raise Unsupported.MIXED_SIZES.error(f"the images have different sizes: {text}")


def _frame_of_reference(images: Sequence[DicomImage]) -> tuple[str, list[str]]:
    uids = Counter(image.text("FrameOfReferenceUID") for image in images)
    del uids[""]
    if len(uids) < 2:
        return next(iter(uids), ""), []
    if len(uids) == len(images) > 2:
        # No scanner does this, and some anonymisers do: a fresh UID for every instance. The positions then tell.
        return "", ["every instance has its own frame of reference (an anonymiser's doing); taken as one"]
    raise Unsupported.MIXED_FRAMES_OF_REFERENCE.error(
        f"the images lie in {len(uids)} different frames of reference, so their positions cannot be compared"
    )


def _about_units(images: Sequence[DicomImage]) -> list[str]:
    kinds = {(image.text("RescaleType") or "HU").upper() for image in images} - {"HU", "US"}
    return [f"the values are {', '.join(sorted(kinds))} and not HU (Rescale Type)"] if kinds else []


def _content(image: DicomImage, frame: int) -> tuple[ModalityTransform, bytes]:
    stored, _ = decode(image, frame, image.encoded([frame])[0])
    return modality_transform_of(image, frame), np.ascontiguousarray(stored).tobytes()
