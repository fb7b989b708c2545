"""Volumes handed from child to child through files."""

from __future__ import annotations

import errno
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from unit.segment.torso import torso
from voxelmill_segment.passing import map_array, open_volume, store_volume, write_array
from voxelmill_shared.imaging.volume import Volume


def test_a_volume_comes_back_as_it_was(tmp_path):
    """Voxels, affine and all that is said of them: a field that is forgotten shows here."""
    given = torso()
    volume = Volume(
        given.voxels,
        given.affine,
        modality="CT",
        frame_of_reference_uid="1.2",
        instance_order=tuple(range(len(given.voxels))),
        frame_order=(0,) * len(given.voxels),
        warnings=("odd",),
        distinction="EchoTime 4.92",
    )
    found = open_volume(store_volume(volume, tmp_path / "new" / "volume.npy"))
    for field in fields(Volume):
        assert getattr(volume, field.name) is not None
        np.testing.assert_array_equal(getattr(found, field.name), getattr(volume, field.name))
    assert found.voxels.dtype == volume.voxels.dtype


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.uint8])
def test_what_is_not_in_c_order_is_so_afterwards(tmp_path, dtype):
    """The compiled loops know one order of memory."""
    array = np.arange(24, dtype=dtype).reshape(2, 3, 4).transpose(2, 0, 1)
    write_array(tmp_path / "a.npy", array)
    found = map_array(tmp_path / "a.npy")
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, array)


def test_what_is_written_to_a_mapped_array_stays_with_the_writer(tmp_path):
    """A phase may work in place, as it may with what is in memory; the next one sees what was handed on."""
    write_array(tmp_path / "a.npy", np.zeros((2, 2, 2), np.int16))
    map_array(tmp_path / "a.npy")[:] = 7
    assert not map_array(tmp_path / "a.npy").any()


def test_a_full_disk_says_so():
    """Its error number is what tells a wait for room from a fault of the work."""
    with pytest.raises(OSError, match="No space left") as caught:
        write_array(Path("/dev/full"), np.zeros((20, 50, 50), np.int16))
    assert caught.value.errno == errno.ENOSPC
