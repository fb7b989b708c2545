"""What the child of `test_totalsegmentator_child` is called with: the device's phase, and looks into its models."""

from __future__ import annotations

import os
import resource
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from voxelmill_segment.device import compute
from voxelmill_segment.totalsegmentator import library
from voxelmill_segment.totalsegmentator.home import prepare_home
from voxelmill_shared.plan import Resolution

if TYPE_CHECKING:
    from collections.abc import Iterator

    from voxelmill_segment.task import Computation, Computed
    from voxelmill_shared.work import Report


NO_MEMORY = "no memory"


def act(request: tuple[str, Any], report: Report) -> Any:
    """Do what the first word says with the second. A lack of memory is an answer: it would end the child."""
    prepare_home(Path(os.environ["VOXELMILL_WEIGHTS"]))
    try:
        return globals()[request[0]](request[1], report)
    except MemoryError:
        return NO_MEMORY


def plainly(request: Computation, report: Report) -> Computed:
    return compute(request, report)


def bounded(request: Computation, report: Report) -> Computed:
    """Compute with half a GiB of address space more than there is now."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + (512 << 20), before[1]))
    try:
        return compute(request, report)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def short_of_memory(request: tuple[Computation, int], report: Report) -> tuple[Computed, list[int]]:
    """Compute on a device that has no memory for the first windows; also how many networks were kept at each."""
    from voxelmill_segment.totalsegmentator import segmenter, window

    computation, times = request
    predictor = segmenter._predictor(Path(os.environ["VOXELMILL_WEIGHTS"]), "cpu")
    kept: list[int] = []
    slide = window._slide

    def fails(*arguments: Any) -> None:
        import torch

        kept.append(len(predictor._models))
        if len(kept) <= times:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        slide(*arguments)

    with _in_place(window, "_slide", fails):
        return compute(computation, report), kept


def loading_without_memory(request: Computation, report: Report) -> Computed:
    """Compute where there is no memory for the network."""
    import torch

    from voxelmill_segment.totalsegmentator import segmenter

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")

    segmenter._predictor(Path(os.environ["VOXELMILL_WEIGHTS"]), "cpu").forget_all()
    with _in_place(torch, "load", fails):
        return compute(request, report)


def keep(most: float, _: Report) -> list[list[int]]:
    """Use networks one after the other, with room for `most` of their size; which are kept after each."""
    import torch

    from voxelmill_segment.totalsegmentator.predictor import Predictor

    fast, fastest = (library.networks("total", one)[0] for one in (Resolution.FAST, Resolution.FASTEST))
    body = library.networks("body", Resolution.FAST)[0]
    weights = Path(os.environ["VOXELMILL_WEIGHTS"])
    one = Predictor(torch.device("cpu"), weights).model(fast).size
    predictor = Predictor(torch.device("cpu"), weights, most_bytes=int(most * one))
    kept = []
    for network in (fast, fastest, fast, body):
        predictor.model(network)
        kept.append([model.network.dataset for model in predictor._models.values()])
    return kept


def folds(_: None, __: Report) -> bool:
    """Whether a network with two folds answers the second time as the first: it has the last fold's parameters then."""
    from voxelmill_segment.totalsegmentator.predictor import Predictor, choose_device
    from voxelmill_segment.totalsegmentator.window import Told

    network = library.networks("pleural_pericard_effusion")[0]
    predictor = Predictor(choose_device("cpu"), Path(os.environ["VOXELMILL_WEIGHTS"]))
    image = np.random.default_rng(5).normal(0, 300, (1, 20, 24, 28)).astype(np.float32)
    first, second = (
        predictor.labels(network, image, (8.0, 7.0, 7.0), 0.5, Told(lambda _: None, "predict")) for _ in range(2)
    )
    return bool(first.any() and np.array_equal(first, second))


@contextmanager
def _in_place(module: Any, name: str, function: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, function)
    try:
        yield
    finally:
        setattr(module, name, before)
