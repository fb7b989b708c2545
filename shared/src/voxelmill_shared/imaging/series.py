"""From the files of a DICOM series to its volumes, or to a clear reason why there is none."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from voxelmill_shared.imaging.coherence import about_transforms, about_units, check_directions, check_surplus
from voxelmill_shared.imaging.decoding import Stored, decode, decoding_threads
from voxelmill_shared.imaging.filling import Filling
from voxelmill_shared.imaging.frames import has_supplemental_palette, modality_transform_of
from voxelmill_shared.imaging.geometry import FramePlane, SliceStack, stack
from voxelmill_shared.imaging.opening import open_image
from voxelmill_shared.imaging.reasons import Unsupported
from voxelmill_shared.imaging.resampling import between, sources
from voxelmill_shared.imaging.splitting import FIELD_CODES, Group, Told, by_image, divide, with_planes
from voxelmill_shared.imaging.volume import Volume
from voxelmill_shared.text import shown
from voxelmill_shared.work import UnsupportedSeriesError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from voxelmill_shared.imaging.image import DicomImage
    from voxelmill_shared.imaging.transform import ModalityTransform, Padding, Values

MAX_VOXELS = 1 << 31
"""The largest volume that is read: 4 GiB of int16."""

_LONGEST_VALUE = 100
"""Characters of a value that a part of a series is named by."""

_DERIVED = {
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "a label map segmentation",
    "1.2.840.10008.5.1.4.1.1.30": "a parametric map",
    "1.2.840.10008.5.1.4.1.1.481.2": "a dose",
    "1.2.840.10008.5.1.4.1.1.77.1.6": "a slide microscopy image",
}


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Frames of a series that are no volume, and why.

    Attributes
    ----------
    frames
        The number of the file and of the frame in it, both from 0.
    code, reason
        As in `UnsupportedSeriesError`.
    told
        By which fields, and which values of them, they were told from the rest of the series.
    distinction
        The same as text, `size 256 x 512`.
    """

    frames: tuple[tuple[int, int], ...]
    code: str
    reason: str
    told: Told = ()
    distinction: str = ""


@dataclass(frozen=True, eq=False)
class SeriesLayout:
    """Frames whose geometry makes a volume; their pixels are still to be decoded.

    `transforms` and `paddings` are per frame, in the order of the stack; of padding only what is to become air.
    `frame_values` may be called from several threads. `told` says by which fields, and which values of them, the volume
    was told from the others of its series.
    """

    images: tuple[DicomImage, ...]
    stack: SliceStack
    transforms: tuple[ModalityTransform, ...]
    paddings: tuple[Padding | None, ...]
    modality: str
    frame_of_reference_uid: str
    warnings: tuple[str, ...]
    told: Told = ()
    distinction: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        """The slices, rows and columns that the volume will have."""
        first = self.images[self.stack.planes[0].image]
        return self.stack.slices, first.rows, first.columns

    @cached_property
    def slices_of(self) -> dict[int, list[int]]:
        """The frames of the stack that come from each image; an image that has no part in it has none."""
        slices: dict[int, list[int]] = {number: [] for number in range(len(self.images))}
        for k, plane in enumerate(self.stack.planes):
            slices[plane.image].append(k)
        return slices

    def frame_values(self, slice_: int, stored: Stored) -> Values:
        """Turn the stored values of a frame of the stack into the modality's units."""
        return self.transforms[slice_].values(stored, self.paddings[slice_])

    def volume(self, slices: list[Values | None]) -> Volume:
        """Stack the frames' values (in the order of the stack) into a volume. Empties the list to spare memory."""
        whole = all(values is not None and values.dtype == np.int16 for values in slices)
        _, rows, columns = self.shape
        voxels = np.empty((len(slices), rows, columns), np.int16 if whole else np.float32)
        for k, values in enumerate(slices):
            voxels[k] = values
            slices[k] = None
        return self._volume_of(voxels)

    def read(self) -> Volume:
        """Decode the frames, in threads, and put them together.

        Raises
        ------
        UnsupportedSeriesError
            If one of them cannot be decoded.
        """
        filling = Filling.of(self.transforms, self.paddings, *self.shape[1:])
        numbers = [number for number, slices in self.slices_of.items() if slices]
        threads = decoding_threads()
        share = max(1, min(16, -(-len(numbers) // threads)))  # a task for each image would cost more than some images

        def fill(start: int) -> None:
            for number in numbers[start : start + share]:
                image, slices = self.images[number], self.slices_of[number]
                frames = [self.stack.planes[k].frame for k in slices]
                for k, frame, encoded in zip(slices, frames, image.encoded(frames), strict=True):
                    filling.put(k, image, frame, encoded)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, range(0, len(numbers), share)))
        return self._volume_of(filling.voxels())

    def _volume_of(self, voxels: Values) -> Volume:
        places = self.stack.places
        order = list(range(len(voxels))) if places is None else sources(places)
        planes = self.stack.planes
        return Volume(
            voxels=voxels if places is None else between(voxels, places),
            affine=self.stack.affine,
            modality=self.modality,
            frame_of_reference_uid=self.frame_of_reference_uid,
            instance_order=tuple(planes[k].image if k >= 0 else -1 for k in order),
            frame_order=tuple(planes[k].frame if k >= 0 else -1 for k in order),
            warnings=(*self.warnings, *self.stack.warnings),
            distinction=self.distinction,
        )


@dataclass(frozen=True, eq=False)
class SeriesLayouts:
    """The volumes that a series can be read into, the largest first, and what of it is no volume.

    Volumes that repeat the same slices (time points, echoes) stand together, in the order of what tells them apart.
    """

    layouts: tuple[SeriesLayout, ...]
    left_out: tuple[LeftOut, ...]

    def others(self, layout: SeriesLayout) -> tuple[str, ...]:
        """Name what else there is beside a volume, a line each."""
        lines = [
            f"another volume of {' x '.join(map(str, other.shape))} ({other.distinction})"
            for other in self.layouts
            if other is not layout
        ]
        for rest in self.left_out:
            told = f" ({rest.distinction})" if rest.distinction else ""
            lines.append(f"{len(rest.frames)} {_images(len(rest.frames))} of no volume{told}: {rest.reason}")
        return tuple(lines)


@dataclass(frozen=True, eq=False)
class SeriesVolumes:
    """The volumes of a series, in the order of `SeriesLayouts`, and what of it is no volume.

    Each volume names in `distinction` what tells it from the others, and in `instance_order` and `frame_order` the
    frames that it is made of.
    """

    volumes: tuple[Volume, ...]
    left_out: tuple[LeftOut, ...] = ()


def read_volumes(sources: Sequence[Path | bytes]) -> SeriesVolumes:
    """Read the files of one series, classic or Enhanced multi-frame, into the volumes that it is made of.

    Parameters
    ----------
    sources
        The files or their bytes, in any order.

    Raises
    ------
    UnsupportedSeriesError
        If there is no volume, or a file cannot be read. With a code of `reasons.Unsupported` and a line that names
        the file or the place. Never a wrong volume.
    """
    found = lay_out_volumes(open_images(sources))
    return SeriesVolumes(tuple(layout.read() for layout in found.layouts), found.left_out)


def read_series(sources: Sequence[Path | bytes]) -> Volume:
    """Read the files of a series that is one volume and nothing else. The same errors as `lay_out`."""
    return lay_out(open_images(sources)).read()


def open_images(sources: Sequence[Path | bytes]) -> list[DicomImage]:
    """Read the headers of files, or of their bytes, which go by their number in messages."""
    return [
        open_image(source, f"image {n + 1}" if isinstance(source, bytes) else "") for n, source in enumerate(sources)
    ]


def lay_out(images: Sequence[DicomImage]) -> SeriesLayout:
    """Check that images make one volume and nothing else, and find its geometry, without decoding a pixel.

    Raises
    ------
    UnsupportedSeriesError
        If they do not.
    """
    found = lay_out_volumes(images)
    for rest in found.left_out:
        if rest.code != Unsupported.TOO_FEW_SLICES:
            raise UnsupportedSeriesError(rest.code, rest.reason)
    parts: list[SeriesLayout | LeftOut] = [*found.layouts, *found.left_out]
    if len(parts) > 1:
        raise _several([part.told for part in parts], [part.distinction for part in parts])
    return found.layouts[0]


def _several(told: Sequence[Told], distinctions: Sequence[str]) -> UnsupportedSeriesError:
    """Say why parts are no single volume: by the first thing that tells them apart."""
    first, *others = map(dict, told)
    field = next((field for other in others for field in first if first[field] != other.get(field)), "repeat")
    more = f" and {len(distinctions) - 4} more" if len(distinctions) > 4 else ""
    return FIELD_CODES[field].error(
        f"the series is {len(distinctions)} parts and not one volume: {'; '.join(distinctions[:4])}{more}"
    )


def lay_out_volumes(images: Sequence[DicomImage]) -> SeriesLayouts:
    """Find the volumes that images make, without decoding more pixels than those of copies.

    Raises
    ------
    UnsupportedSeriesError
        If there is none; with the reason for the largest part.
    """
    contents: dict[tuple[int, int], tuple[ModalityTransform, bytes]] = {}

    def same_content(one: FramePlane, other: FramePlane) -> bool:
        for plane in (one, other):
            if (plane.image, plane.frame) not in contents:
                contents[plane.image, plane.frame] = _content(images[plane.image], plane.frame)
        return contents[one.image, one.frame] == contents[other.image, other.frame]

    left_out, numbers = _leave_out_other_kinds(images)
    groups: list[Group] = []
    for group, members in by_image(images, numbers):
        try:
            groups += divide(with_planes(group, images, members), images, same_content)
        except UnsupportedSeriesError as error:
            frames = tuple((n, frame) for n in members for frame in range(images[n].frames))
            left_out.append((group.told, frames, error))
    layouts = []
    for group in groups:
        try:
            layouts.append(_lay_out_group(images, group))
        except UnsupportedSeriesError as error:
            left_out.append((group.told, tuple((plane.image, plane.frame) for plane in group.planes), error))
    if not layouts:
        raise _no_volume(left_out)
    return _named(layouts, left_out)


def _no_volume(left_out: Sequence[_Rest]) -> UnsupportedSeriesError:
    if not left_out:
        return Unsupported.TOO_FEW_SLICES.error("there are no images")
    largest = max(left_out, key=lambda rest: len(rest[1]))
    if len(left_out) > 1 and largest[2].code == Unsupported.TOO_FEW_SLICES:
        told = [rest[0] for rest in left_out]
        return _several(told, [f"{_distinction(one, told)} (too few slices)" for one in told])
    return largest[2]


_Rest = tuple[Told, tuple[tuple[int, int], ...], UnsupportedSeriesError]


def _leave_out_other_kinds(images: Sequence[DicomImage]) -> tuple[list[_Rest], list[int]]:
    """Sort out what can be no slice: objects that are made from images, and pictures in colour."""
    rest: list[_Rest] = []
    numbers = []
    for n, image in enumerate(images):
        derived = _DERIVED.get(image.text("SOPClassUID"))
        frames = tuple((n, frame) for frame in range(image.frames))
        if derived:
            error = Unsupported.DERIVED_OBJECT.error(f"{image.name}: it is {derived}, not an image series")
            rest.append(((), frames, error))
        elif image.samples != 1 or not image.photometric.startswith("MONOCHROME"):
            error = Unsupported.COLOUR_IMAGES.error(f"{image.name}: it is in colour ({image.photometric})")
            rest.append(((), frames, error))
        elif image.elements is None and has_supplemental_palette(image):  # only Enhanced images have one
            error = Unsupported.COLOUR_IMAGES.error(
                f"{image.name}: part of its values are colours (a supplemental palette)"
            )
            rest.append(((), frames, error))
        else:
            numbers.append(n)
    return rest, numbers


def _lay_out_group(images: Sequence[DicomImage], group: Group) -> SeriesLayout:
    first = images[group.planes[0].image]
    warnings = list(group.warnings)
    if len(group.planes) * first.rows * first.columns > MAX_VOXELS:
        raise Unsupported.IMPLAUSIBLE_SIZE.error(
            f"{len(group.planes)} slices of {first.rows} x {first.columns} are more voxels than are read"
        )
    stacked = stack(group.planes)
    used = [images[n] for n in sorted({plane.image for plane in stacked.planes})]
    check_surplus(used)
    check_directions(stacked, first.rows, first.columns)
    if stacked.slices * first.rows * first.columns > MAX_VOXELS:
        raise Unsupported.IMPLAUSIBLE_SIZE.error(f"{stacked.slices} slices are more voxels than are read")
    modality = first.text("Modality")
    if modality == "CT":
        warnings += about_units(used)
    transforms = tuple(modality_transform_of(images[plane.image], plane.frame) for plane in stacked.planes)
    warnings += about_transforms(transforms)
    return SeriesLayout(
        images=tuple(images),
        stack=stacked,
        transforms=transforms,
        paddings=tuple(images[plane.image].padding if modality == "CT" else None for plane in stacked.planes),
        modality=modality,
        frame_of_reference_uid=group.frame_of_reference_uid,
        warnings=tuple(warnings),
        told=group.told,
    )


def _named(layouts: list[SeriesLayout], left_out: list[_Rest]) -> SeriesLayouts:
    """Name what tells the volumes apart, and put the largest first."""
    told = [*(layout.told for layout in layouts), *(rest[0] for rest in left_out)]
    named = [
        replace(layout, distinction=_distinction(layout.told, told))
        for layout in sorted(layouts, key=_size, reverse=True)
    ]
    rests = [LeftOut(frames, error.code, error.reason, one, _distinction(one, told)) for one, frames, error in left_out]
    return SeriesLayouts(tuple(named), tuple(sorted(rests, key=lambda rest: -len(rest.frames))))


def _distinction(one: Told, every: Sequence[Told]) -> str:
    """Name the fields of a part that not all parts share."""
    common = set(one).intersection(*(told for told in every if told))
    parts = [value if field == "repeat" else f"{field} {value}" for field, value in one if (field, value) not in common]
    return ", ".join(shown(part, _LONGEST_VALUE) for part in parts)


def _size(layout: SeriesLayout) -> int:
    slices, rows, columns = layout.shape
    return slices * rows * columns


def _images(count: int) -> str:
    return "image" if count == 1 else "images"


def _content(image: DicomImage, frame: int) -> tuple[ModalityTransform, bytes]:
    stored, _ = decode(image, frame, image.encoded([frame])[0])
    digest = hashlib.sha256(np.ascontiguousarray(stored).tobytes()).digest()
    return modality_transform_of(image, frame), digest
