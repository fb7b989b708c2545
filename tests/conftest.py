"""Fixtures that every test may use. Servers are started privately, once per run, and ended by pid."""

from __future__ import annotations

import gc
import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

# Four thousand tests and what they import are made at once and stay: looking through them for garbage, again and again,
# takes as long as making them.
gc.disable()

pytest_plugins = ["servers.rabbitmq", "servers.seaweedfs", "servers.postgresql"]

TESTS = Path(__file__).parent
MEASURED = (TESTS / "unit" / "shared", TESTS / "contract")
"""The tests of `voxelmill_shared` itself, which is what coverage is asked for."""

IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def missing(what: str) -> None:
    """Skip on a developer's machine, fail in CI: a test that CI cannot run is no test."""
    if IN_CI:
        pytest.fail(f"{what}; CI must have it")
    pytest.skip(what)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Whatever a test makes of the log's configuration, the tests after it log as the ones before it."""
    before, handlers, level, show = (
        structlog.get_config(),
        logging.root.handlers[:],
        logging.root.level,
        warnings.showwarning,
    )
    yield
    structlog.configure(**before)
    logging.captureWarnings(capture=False)
    warnings.showwarning = show
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


class _Measurement:
    """Coverage, on for the tests of `MEASURED` and off for the others: tracing would cost those half as much again.

    The processes that a test starts are measured if the test is.
    """

    NAME = "COVERAGE_PROCESS_CONFIG"

    def __init__(self, controller: Any) -> None:
        self._controller = controller
        self._for_children = os.environ.get(self.NAME)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        wanted = any(folder in item.path.parents for folder in MEASURED)
        if wanted != self._controller.started:
            if wanted:
                self._controller.resume()
            else:
                self._controller.pause()
            if self._for_children is not None:
                if wanted:
                    os.environ[self.NAME] = self._for_children
                else:
                    os.environ.pop(self.NAME, None)
        return (yield)


def pytest_collection_finish() -> None:
    """From here on garbage is collected as ever, and not looked for in what is there already."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(trylast=True)  # when pytest-cov has begun
def pytest_sessionstart(session: pytest.Session) -> None:
    """Measure what is to be measured, where pytest-cov was asked to."""
    plugin = session.config.pluginmanager.getplugin("_cov")
    controller = getattr(plugin, "cov_controller", None)
    if controller is not None and controller.cov is not None:
        session.config.pluginmanager.register(_Measurement(controller))


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
