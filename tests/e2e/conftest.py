"""A small phantom as a DICOM series, and one run of it that several tests look at."""

from __future__ import annotations

import pytest

from e2e.command import voxelmill
from voxelmill_cli.phantom import Phantom, PhantomPlan, make_phantom
from voxelmill_cli.phantom_dicom import write_series

PLAN = PhantomPlan(seed=7, rows=112, columns=112, slices=44, pixel_mm=3.4, slice_mm=7.0)


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    """A phantom of 112 x 112 x 44."""
    return make_phantom(PLAN)


@pytest.fixture(scope="session")
def series(phantom, tmp_path_factory):
    """Its DICOM series."""
    folder = tmp_path_factory.mktemp("source") / "chest ct"
    write_series(folder, phantom)
    return folder


@pytest.fixture(scope="session")
def finished(series, tmp_path_factory):
    """A run of the whole series: (what the command said, the destination, the folder of results)."""
    output = tmp_path_factory.mktemp("run") / "out"
    ended = voxelmill("run", series, "--organ", "all", "--output", output, "--json")
    return ended, output, output / "all_segmentation_chest_ct"
