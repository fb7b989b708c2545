"""The sliding window of a network over an image, with only those rows' logits in memory that tiles still reach.

nnU-Net keeps the logits of every class for the whole image. Here, as the window moves on, what it leaves is divided and
its greatest class written down. Each voxel sees the same operations in the same order, so the labels are the same; the
test of the seams holds the source of what is mirrored here (`_internal_predict_sliding_window_return_logits`).
"""

from __future__ import annotations

import os
import resource
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.predict_from_raw_data import pad_nd_image
from nnunetv2.inference.sliding_window_prediction import compute_gaussian

from voxelmill_segment.totalsegmentator.errors import NotFiniteError
from voxelmill_segment.totalsegmentator.kernels import argmax_half
from voxelmill_shared.work import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from voxelmill_segment.totalsegmentator.library import Network
    from voxelmill_segment.totalsegmentator.preprocessing import Input
    from voxelmill_shared.work import Report

_AHEAD = 3
"""Tiles that a GPU may be behind: enough that it never waits, few enough that a cancelled job ends at once."""
_HEADS_MOVED = 16
"""Classes whose logits are moved at a time when the window moves on."""


@dataclass(slots=True)
class Model:
    """A trained network in memory."""

    network: Network
    nnunet: Any
    size: int

    @property
    def folds(self) -> list[dict[str, torch.Tensor]]:
        """The parameters of each fold."""
        folds: list[dict[str, torch.Tensor]] = self.nnunet.list_of_parameters
        return folds


@dataclass(slots=True)
class Told:
    """Who is told of tiles, as parts of the tiles of several networks that follow each other."""

    report: Report
    step: str
    networks: int = 1
    before: int = 0

    def tile(self, done: int, total: int) -> None:
        """Say that `done` of the tiles of the network at work are there."""
        self.report(Progress(self.step, self.before * total + done, self.networks * total))


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free now on a device, what torch holds and does not use included.

    On a processor no more than the bound on this process's address space leaves, if it has one.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    page = os.sysconf("SC_PAGE_SIZE")
    free = page * os.sysconf("SC_PHYS_PAGES")
    for line in _lines("/proc/meminfo"):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            free = int(value.split()[0]) * 1024
    bound, _ = resource.getrlimit(resource.RLIMIT_AS)
    if bound != resource.RLIM_INFINITY:
        mapped = sum(int(line.split()[0]) * page for line in _lines("/proc/self/statm"))
        free = max(0, min(free, bound - mapped))
    return int(free)


def window_bytes(model: Model, shape: Sequence[int]) -> int:
    """Return what the logits of a padded image (z, y, x) take while the window moves over it."""
    heads = model.nnunet.label_manager.num_segmentation_heads
    rows = model.nnunet.configuration_manager.patch_size[0]
    return int((heads + 1) * rows * shape[1] * shape[2] * 2)


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="ascii").splitlines() if Path(path).exists() else []


def predict(
    model: Model, ready: Input, device: torch.device, step: float, tell: Told, *, on_host: bool
) -> npt.NDArray[np.uint8]:
    """Label one image with one network.

    Parameters
    ----------
    model
        The network.
    ready
        What it sees.
    device
        Where it is.
    step
        How far tiles are apart, in tiles.
    tell
        Is told of each tile; may raise to end it.
    on_host
        Whether the logits are gathered in the machine's memory though the network is on a GPU. They are so too if they
        do not fit beside it.

    Returns
    -------
    ndarray
        uint8 (z, y, x) of the image: the network's own labels.

    Raises
    ------
    NotFiniteError
        If the network gives no numbers.
    """
    nnunet = model.nnunet
    data = torch.from_numpy(ready.data)
    patch = nnunet.configuration_manager.patch_size
    padded, inner = pad_nd_image(data, patch, "constant", {"value": 0}, True, None)
    nnunet.tile_step_size = step
    slicers = nnunet._internal_get_sliding_window_slicers(padded.shape[1:])  # noqa: SLF001 - its grid of tiles
    crop = (slice(None), *inner[1:])
    if device.type == "cuda":
        # Half of what is free is left to the network's own activations and the window's moves.
        on_host = on_host or window_bytes(model, padded.shape[1:]) + padded.nbytes > free_bytes(device) // 2
    else:
        on_host = True
    results = torch.device("cpu") if on_host else device
    pace = _Pace(device, tell, len(slicers) * len(model.folds))
    simple = len(model.folds) == 1 and not nnunet.label_manager.has_regions
    if simple and ready.data.shape[1:] == ready.shape:
        found = np.empty(padded.shape[1:], np.uint8)

        def write(first: int, block: torch.Tensor) -> None:
            found[first : first + block.shape[1]] = _greatest(block)

        _slide(nnunet, padded, slicers, device, results, pace, patch[0], write)
        return ready.restore(found[crop[1:]])
    logits: list[torch.Tensor] = []
    for parameters in model.folds:
        if len(model.folds) > 1:
            nnunet.network.load_state_dict(parameters)
        whole: list[torch.Tensor] = []
        _slide(nnunet, padded, slicers, device, results, pace, padded.shape[1], _Keep(whole))
        one = whole[0].to("cpu")[crop]
        logits = [one] if not logits else [logits[0].add_(one)]
    if len(model.folds) > 1:
        logits[0] /= len(model.folds)
    return _export(nnunet, logits.pop(), ready)


def _slide(
    nnunet: Any,
    data: torch.Tensor,
    slicers: Sequence[tuple[slice, ...]],
    device: torch.device,
    results: torch.device,
    pace: _Pace,
    rows: int,
    finished: Callable[[int, torch.Tensor], None],
) -> None:
    """Move the window over the image, `rows` of it in memory, and hand over the logits of the rows that it has left."""
    heads = nnunet.label_manager.num_segmentation_heads
    patch = tuple(nnunet.configuration_manager.patch_size)
    gaussian = compute_gaussian(patch, sigma_scale=1.0 / 8, value_scaling_factor=10, device=results)
    data = data.to(results)
    logits = torch.zeros((heads, rows, *data.shape[2:]), dtype=torch.half, device=results)
    weights = torch.zeros((rows, *data.shape[2:]), dtype=torch.half, device=results)
    start = 0

    def leave(count: int) -> None:
        nonlocal start
        block = logits[:, :count]
        torch.div(block, weights[:count], out=block)
        finished(start, block)
        start += count

    for place in slicers:
        first = place[1].start
        if first + patch[0] > start + rows:
            gone = first - start
            leave(gone)
            _move_on(logits, gone)
            _move_on(weights[None], gone)
        tile = torch.clone(data[place][None], memory_format=torch.contiguous_format).to(device)
        prediction = nnunet.network(tile)[0].to(results)
        within = (slice(first - start, first - start + patch[0]), *place[2:])
        _add(logits[(slice(None), *within)], prediction, gaussian)
        weights[within] += gaussian
        pace.tile()
    leave(data.shape[1] - start)


def _add(logits: torch.Tensor, prediction: torch.Tensor, gaussian: torch.Tensor) -> None:
    """Add a tile's weighted prediction to the logits (half precision) of its place; the prediction is used up."""
    if prediction.device.type != "cpu":
        prediction *= gaussian
        logits += prediction
        return
    # Class by class, which stays in the processor's cache: adding floats to halves makes two copies of the tile first,
    # as floats. The numbers are the same: a half is a float, and each sum is rounded once.
    gaussian = gaussian.to(prediction.dtype)
    for there, added in zip(logits, prediction, strict=True):
        there.add_(added.mul_(gaussian))


@dataclass(frozen=True, slots=True)
class _Keep:
    """Takes the logits of the whole image as they are."""

    kept: list[torch.Tensor]

    def __call__(self, _: int, block: torch.Tensor) -> None:
        self.kept.append(block)


def _move_on(window: torch.Tensor, rows: int) -> None:
    """Move a window (classes, rows, y, x) on within its own memory."""
    kept = window.shape[1] - rows
    for first in range(0, window.shape[0], _HEADS_MOVED):
        some = window[first : first + _HEADS_MOVED]
        some[:, :kept] = some[:, rows:].clone()
        some[:, kept:] = 0


def _greatest(block: torch.Tensor) -> npt.NDArray[np.uint8]:
    if block.device.type == "cpu":
        try:
            return argmax_half(block.numpy())
        except FloatingPointError as error:
            raise NotFiniteError(str(error)) from None
    _require_finite(block)
    found: npt.NDArray[np.uint8] = block.argmax(0).to(torch.uint8).cpu().numpy()
    return found


def _require_finite(logits: torch.Tensor) -> None:
    if not bool(torch.isfinite(logits).all()):
        raise NotFiniteError("the network's answer holds numbers that are not finite")


def _export(nnunet: Any, logits: torch.Tensor, ready: Input) -> npt.NDArray[np.uint8]:
    """Resample logits to the grid that the image came on, and take the greatest: nnU-Net's own export.

    With its usual function each class is resampled alone and compared with the greatest so far, which is the same and
    needs two volumes instead of one for each class.
    """
    _require_finite(logits)
    configuration = nnunet.configuration_manager
    resample = configuration.resampling_fn_probabilities
    name = configuration.configuration.get("resampling_fn_probabilities")
    if nnunet.label_manager.has_regions or name != "resample_data_or_seg_to_shape":
        whole: npt.NDArray[Any] = convert_predicted_logits_to_segmentation_with_correct_shape(
            logits.numpy(), nnunet.plans_manager, configuration, nnunet.label_manager, ready.properties
        )
        return np.ascontiguousarray(whole, dtype=np.uint8)
    found = np.zeros(ready.shape, np.uint8)
    best = None
    for label, channel in enumerate(logits.numpy()):
        fine = resample(channel[None], ready.shape, configuration.spacing, ready.spacing)[0]
        if best is None:
            best = np.array(fine)
            continue
        greater = fine > best
        found[greater] = label
        np.copyto(best, fine, where=greater)
    return ready.restore(found)


@dataclass(slots=True)
class _Pace:
    """Counts tiles, and keeps the processor from running far ahead of a GPU, whose work a call only begins."""

    device: torch.device
    tell: Told
    total: int
    done: int = 0
    _begun: deque[Any] = field(default_factory=deque)

    def tile(self) -> None:
        if self.device.type == "cuda":
            event: Any = torch.cuda.Event()
            event.record()
            self._begun.append(event)
            if len(self._begun) > _AHEAD:
                self._begun.popleft().synchronize()
        self.done += 1
        self.tell.tile(self.done, self.total)
