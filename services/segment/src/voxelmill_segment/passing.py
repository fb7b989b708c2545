"""Volumes and labels handed from child to child through files of the scratch folder.

Plain `.npy`, mapped and not read: what one child has written, the next finds in the page cache, and neither copies it.
A mapped volume may be written to, as one in memory may; what is written stays with whoever wrote it.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from voxelmill_segment.task import Computed, StoredVolume
from voxelmill_shared.imaging.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt


def store_volume(volume: Volume, path: Path) -> StoredVolume:
    """Write a volume's voxels into a file, and say the rest."""
    write_array(path, volume.voxels)
    slices, rows, columns = volume.voxels.shape
    return StoredVolume(
        voxels=path,
        shape=(slices, rows, columns),
        affine=tuple(tuple(map(float, row)) for row in volume.affine),
        modality=volume.modality,
        frame_of_reference_uid=volume.frame_of_reference_uid,
        instance_order=volume.instance_order,
        frame_order=volume.frame_order,
        warnings=volume.warnings,
        distinction=volume.distinction,
    )


def open_volume(stored: StoredVolume) -> Volume:
    """Return a volume that was stored; its voxels are mapped."""
    about = {one.name: getattr(stored, one.name) for one in fields(Volume) if one.name not in {"voxels", "affine"}}
    return Volume(voxels=map_array(stored.voxels), affine=np.array(stored.affine), **about)


def open_labels(computed: Computed) -> npt.NDArray[np.uint8]:
    """Return the labels of the second phase, mapped."""
    return map_array(computed.labels)


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an array in C order, whatever order it has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.ascontiguousarray(array)
    # Not np.save: its error of a full disk does not say that it is one.
    with path.open("wb") as file:
        npy.write_array_header_2_0(file, npy.header_data_from_array_1_0(array))
        file.write(array.reshape(-1).view(np.uint8).data)


def map_array(path: Path) -> npt.NDArray[Any]:
    """Map a `.npy` file; what is written to the array does not reach the file."""
    mapped: npt.NDArray[Any] = np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
    return mapped
