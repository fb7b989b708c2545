"""Phantoms as DICOM series, and one run of them that several tests look at."""

from __future__ import annotations

import shutil
import tarfile
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import pydicom
import pytest

from e2e.command import Ended, voxelmill
from e2e.runs import COARSE, SMALL, USUAL, Finished
from e2e.sharing import once
from voxelmill_cli.phantom import Phantom, make_phantom
from voxelmill_cli.phantom_dicom import write_series

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    """A phantom of 112 x 112 x 44."""
    return make_phantom(USUAL)


@pytest.fixture(scope="session")
def series(request, tmp_path_factory) -> Path:
    """Its DICOM series. Nobody may change it: see `once`."""

    def write(made: Path) -> None:
        write_series(made / "chest ct", request.getfixturevalue("phantom"))

    return once(tmp_path_factory, "series", write)[0] / "chest ct"


@pytest.fixture(scope="session")
def coarse(tmp_path_factory) -> Path:
    """A second series, of 64 x 64 x 24. Nobody may change it."""

    def write(made: Path) -> None:
        write_series(made / "CT", make_phantom(COARSE))

    return once(tmp_path_factory, "coarse", write)[0] / "CT"


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> list[Path]:
    """Two small series in folders of one name, quick to run. Nobody may change them."""

    def write(made: Path) -> None:
        for seed in (1, 2):
            write_series(made / f"patient{seed}" / "CT", make_phantom(replace(SMALL, seed=seed)))

    return [once(tmp_path_factory, "small", write)[0] / f"patient{seed}" / "CT" for seed in (1, 2)]


@pytest.fixture(scope="session")
def pictures(small, tmp_path_factory) -> Path:
    """Four slices that only pictures are made of, which is quickest. Nobody may change them."""

    def write(made: Path) -> None:
        (made / "CT").mkdir()
        for path in sorted(small[0].iterdir())[:4]:
            dataset = pydicom.dcmread(path)
            dataset.Modality = "MR"
            dataset.save_as(made / "CT" / path.name)

    return once(tmp_path_factory, "pictures", write)[0] / "CT"


@pytest.fixture(scope="session")
def finished(coarse, small, tmp_path_factory) -> Finished:
    """A run of two whole series: one in the folder `chest ct`, one out of a tar."""

    def run(made: Path) -> dict:
        shutil.copytree(coarse, made / "study" / "chest ct")
        with tarfile.open(made / "study" / "more.tar.gz", "w:gz") as target:
            target.add(small[0], "some folder")
        return asdict(voxelmill("run", made / "study", "--organ", "all", "--output", made / "out", "--json"))

    made, said = once(tmp_path_factory, "finished", run)
    return Finished(Ended(**said), made / "study", made / "out")
