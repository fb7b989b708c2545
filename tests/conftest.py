"""Fixtures that every test may use. Servers are started privately, once per run, and ended by pid."""

from __future__ import annotations

import gc
import logging
import os
import random
import warnings
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

# Four thousand tests and what they import are made at once and stay: looking through them for garbage, again and again,
# takes as long as making them.
gc.disable()

pytest_plugins = ["servers.rabbitmq", "servers.seaweedfs", "servers.postgresql"]

TESTS = Path(__file__).parent
MEASURED = (TESTS / "unit" / "shared", TESTS / "contract")
"""The tests of `voxelmill_shared` itself, which is what coverage is asked for."""

LONG = (TESTS / "browser", TESTS / "e2e", TESTS / "faults")
"""The tests that start processes or servers of their own, and take the longest."""
WITH_TORCH = ("test_totalsegmentator_", "test_tiny_weights")
"""How the names of the modules begin that import torch."""

IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}

# CI judges a commit, not a draw: there every draw is the same each time. Everywhere else each run draws anew.
settings.register_profile("ci", derandomize=True)
settings.load_profile("ci" if IN_CI else "default")


def missing(what: str) -> None:
    """Skip on a developer's machine, fail in CI: a test that CI cannot run is no test."""
    if IN_CI:
        pytest.fail(f"{what}; CI must have it")
    pytest.skip(what)


@pytest.fixture
def seed() -> int:
    """What a test draws from. It stands in the report of a failure; `VOXELMILL_TEST_SEED` gives the same again."""
    drawn = 1 if IN_CI else random.SystemRandom().randrange(1 << 30)
    chosen = int(os.environ.get("VOXELMILL_TEST_SEED", drawn))
    print(f"VOXELMILL_TEST_SEED={chosen}")
    return chosen


@pytest.fixture(autouse=True, scope="session")
def _plain_tracebacks() -> None:
    """What no test has configured logs errors plainly: structlog's default paints them, 10 s for one deep in a server."""
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], plain])


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


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal the tests to pytest-xdist's workers: the long ones first, and to one worker all that import torch.

    Worksteal gives each worker as many tests in a row. A long one that comes last keeps a single processor busy, and
    each worker that runs a test of TotalSegmentator's imports it, which takes 10 s.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers == 1 or len(items) < 100 * workers:
        return
    shares: list[list[pytest.Item]] = [[] for _ in range(workers)]
    others: list[pytest.Item] = []
    modules: dict[Path, int] = {}
    for item in items:
        if item.path.stem.startswith(WITH_TORCH):
            shares[0].append(item)
        elif any(folder in item.path.parents for folder in LONG):
            shares[1 + modules.setdefault(item.path, len(modules)) % (workers - 1)].append(item)
        else:
            others.append(item)
    rest, left = iter(others), len(items)
    for number, share in enumerate(shares):
        share.extend(islice(rest, max(0, left // (workers - number) - len(share))))
        left -= len(share)
    items[:] = [*chain.from_iterable(shares), *rest]


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


@pytest.fixture(autouse=True, scope="session")
def _no_authorities(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test asks a server outside: an HTTP client need not read the world's certificates, 30 ms for each client."""
    os.environ.setdefault("SSL_CERT_DIR", str(tmp_path_factory.mktemp("authorities")))


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
