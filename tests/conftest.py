"""Fixtures that every test may use. Servers are started privately, once per run, and ended by pid."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest_plugins = ["servers.rabbitmq", "servers.seaweedfs", "servers.postgresql"]

IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def missing(what: str) -> None:
    """Skip on a developer's machine, fail in CI: a test that CI cannot run is no test."""
    if IN_CI:
        pytest.fail(f"{what}; CI must have it")
    pytest.skip(what)


@pytest.fixture(autouse=True, scope="session")
def _clean_environment() -> None:
    for name in [name for name in os.environ if name.startswith("VOXELMILL_") and "TEST" not in name]:
        del os.environ[name]


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real DICOM and NIfTI files (VOXELMILL_TEST_DATA, else ../shared/data beside the checkout)."""
    folder = Path(os.environ.get("VOXELMILL_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "MANIFEST.tsv").exists():
        missing(f"no test data in {folder} (set VOXELMILL_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def totalsegmentator() -> str:
    """The version of TotalSegmentator, which is an extra of the segment service and gigabytes large."""
    from voxelmill_segment.totalsegmentator import library

    try:
        library.require()
    except library.NotInstalledError as error:
        missing(str(error))
    return library.VERSION
