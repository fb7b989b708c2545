"""Crumbs of tissue become what surrounds them; what is large enough, or no tissue, stays."""

from __future__ import annotations

import numpy as np

from voxelmill_segment import labels as table
from voxelmill_segment.specks import merge_specks

SOFT, FAT, BONE = table.SOFT_TISSUE.number, table.TORSO_FAT.number, table.BONES.number


def test_a_crumb_takes_the_tissue_around_it():
    """One voxel of fat within muscle is muscle, and a voxel of muscle within fat is fat."""
    labels = np.full((20, 20, 40), SOFT, np.uint8)
    labels[:, :, 20:] = FAT
    labels[5, 5, 5], labels[5, 5, 30] = FAT, SOFT
    merge_specks(labels, (1.0, 1.0, 1.0))
    assert (labels[:, :, :20] == SOFT).all()
    assert (labels[:, :, 20:] == FAT).all()


def test_what_is_large_enough_stays():
    """0.02 mL is the limit: 5 x 2 x 2 voxels of 1 mm stand, one less goes."""
    labels = np.full((20, 20, 20), SOFT, np.uint8)
    labels[2:7, 2:4, 2:4] = FAT
    before = labels.copy()
    merge_specks(labels, (1.0, 1.0, 1.0))
    assert (labels == before).all()
    labels[2, 2, 2] = SOFT
    merge_specks(labels, (1.0, 1.0, 1.0))
    assert (labels == SOFT).all()


def test_bones_and_islands_in_air_are_left_alone():
    """A small bone is a bone; a crumb that touches no tissue has nothing to become."""
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[3, 3, 3] = BONE
    labels[8, 8, 8] = SOFT
    before = labels.copy()
    merge_specks(labels, (1.0, 1.0, 1.0))
    assert (labels == before).all()
