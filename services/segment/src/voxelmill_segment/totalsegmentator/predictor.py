"""nnU-Net's networks kept in memory on one device: the least recently used goes when they take too much.

nnU-Net loads a network for each call and hands volumes to processes that it starts anew. Here it stays, and everything
happens in this process.
"""

from __future__ import annotations

import codecs
import contextlib
import gc
import io
import os
import pickle
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from nnunetv2.configuration import default_num_processes
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from voxelmill_segment.totalsegmentator.errors import DamagedWeightsError, DeviceMissingError
from voxelmill_segment.totalsegmentator.preprocessing import preprocess
from voxelmill_segment.totalsegmentator.trainers import find_trainer
from voxelmill_segment.totalsegmentator.weights import CHECKPOINT, MissingWeightsError
from voxelmill_segment.totalsegmentator.window import Model, free_bytes, predict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from voxelmill_segment.totalsegmentator.library import Network
    from voxelmill_segment.totalsegmentator.window import Told


def choose_device(name: str) -> torch.device:
    """Return the device of a name: `auto`, `cpu`, `mps`, `cuda`, `cuda:1`.

    Raises
    ------
    DeviceMissingError
        If it is not there, or there is no such kind.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in {"cpu", "cuda", "mps"} or (number and (kind != "cuda" or not number.isdigit())):
        raise DeviceMissingError(f"there is no device {name!r}: auto, cuda, cuda:0, mps or cpu")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceMissingError(f"the device mps is not there: it needs an Apple GPU; {_MEND}")
    if kind == "cuda":
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= there:
            raise DeviceMissingError(f"the device {name} is not there ({there} found): {_MEND}")
    return torch.device("cuda", int(number or 0)) if kind == "cuda" else torch.device(kind)


_MEND = "set VOXELMILL_SEGMENT_DEVICE to auto or cpu"
_SCALAR = np.float64(0).__reduce__()[0]
_NUMBERS: list[Any] = [
    # What checkpoints of nnU-Net hold beside tensors: scores of the training, scalars of numpy by its old and new name.
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    *(type(np.dtype(name)) for name in ("f2", "f4", "f8", "i4", "i8", "?")),
    codecs.encode,
]
_DAMAGE = (
    OSError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    ImportError,
    RuntimeError,
    pickle.UnpicklingError,
)
"""What nnU-Net raises where its files are not what it takes them to be: it looks at nothing before it uses it."""
_NO_MEMORY = ("out of memory", "DefaultCPUAllocator", "not enough memory", "can't allocate memory", "ALLOC_FAILED")


@dataclass(slots=True)
class Predictor:
    """Networks on one device, kept between calls.

    Parameters
    ----------
    device
        Where they compute.
    weights
        The folder of `Dataset…` folders.
    most_bytes
        How much the kept networks may take; one that is larger alone is kept alone. None: half of the memory that is
        free now on a GPU, else a quarter.
    """

    device: torch.device
    weights: Path
    most_bytes: int | None = None
    results_on_host: bool = False
    _models: OrderedDict[tuple[object, ...], Model] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        if self.most_bytes is None:
            self.most_bytes = free_bytes(self.device) // (2 if self.device.type == "cuda" else 4)
        # One process has one device. On a processor every core computes, as nnU-Net's own at most 8; on a GPU the
        # processor's part is a single thread that feeds it.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(min(cores, default_num_processes) if self.device.type == "cpu" else 1)
        torch.backends.cudnn.benchmark = self.device.type == "cuda"  # tiles are all of one shape

    def model(self, network: Network) -> Model:
        """Return a network, loaded unless it is kept.

        Raises
        ------
        MissingWeightsError
            If its folder is not there.
        DamagedWeightsError
            If it cannot be read.
        """
        folder = self.weights / network.path
        if not folder.is_dir():
            raise MissingWeightsError((network.folder,), self.weights)
        files = sorted(folder.glob(f"fold_*/{CHECKPOINT}"))
        stamp = tuple((file.name, status.st_mtime_ns, status.st_size) for file in files for status in [file.stat()])
        key = (str(folder), network.folds, stamp)
        model = self._models.pop(key, None)
        if model is None:
            model = _load(folder, network, self.device)
        self._models[key] = model
        self._forget()
        return model

    def labels(
        self, network: Network, image: npt.NDArray[np.float32], spacing: Sequence[float], step: float, tell: Told
    ) -> npt.NDArray[np.uint8]:
        """Label an image with one network.

        Parameters
        ----------
        network
            Which.
        image
            float32 (channels, z, y, x), contiguous, on the grid that the network's task resamples to.
        spacing
            Millimetres along z, y, x.
        step
            How far tiles are apart, in tiles.
        tell
            Is told of each tile; may raise to end it.

        Returns
        -------
        ndarray
            uint8 (z, y, x): the network's own labels.

        Raises
        ------
        NotFiniteError
            If the network gives no numbers.
        MemoryError
            If there is not enough of it.
        """
        tell.report(tell.step)
        with torch.inference_mode(), _memory_errors():
            model = self.model(network)
            ready = preprocess(model.nnunet, image, spacing)
            with _autocast(self.device):
                return predict(model, ready, self.device, step, tell, on_host=self.results_on_host)

    def make_room(self) -> None:
        """Give back what was computed with and is not needed any more."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()

    def forget_all(self) -> None:
        """Keep no network: the next call has all memory to itself."""
        self._models.clear()
        self.make_room()

    def kept_bytes(self) -> int:
        """Return what the kept networks take."""
        return sum(model.size for model in self._models.values())

    def _forget(self) -> None:
        while len(self._models) > 1 and self.kept_bytes() > (self.most_bytes or 0):
            self._models.popitem(last=False)
            self.make_room()


def _load(folder: Path, network: Network, device: torch.device) -> Model:
    predict_from_raw_data.recursive_find_trainer_class_by_name = find_trainer
    with contextlib.redirect_stdout(io.StringIO()):  # it says which device it is for
        nnunet = nnUNetPredictor(
            use_gaussian=True,
            use_mirroring=False,
            perform_everything_on_device=True,
            device=device,
            allow_tqdm=False,
        )
        try:
            with _numbers_only():
                nnunet.initialize_from_trained_model_folder(str(folder), network.folds, CHECKPOINT)
        except _DAMAGE as error:
            if _out_of_memory(error):
                raise
            raise DamagedWeightsError(
                f"{network.folder}: the weights cannot be loaded ({_reason(error)}); `voxelmill weights verify` says"
                " whether they are as they came, `download` or `import` with --replace brings them anew"
            ) from None
    nnunet.network = nnunet.network.to(device).eval()
    size = sum(value.numel() * value.element_size() for value in nnunet.network.state_dict().values())
    if len(nnunet.list_of_parameters) > 1:
        size *= 1 + len(nnunet.list_of_parameters)
    else:
        nnunet.list_of_parameters = [nnunet.network.state_dict()]  # not a second time, beside those on the device
    return Model(network, nnunet, size)


def _autocast(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Half precision on CUDA, as nnU-Net has it; nowhere else (on a processor it is slower, MPS has none)."""
    return torch.autocast("cuda") if device.type == "cuda" else contextlib.nullcontext()


@contextlib.contextmanager
def _memory_errors() -> Iterator[None]:
    """Make one error of the several that torch raises when memory is used up."""
    try:
        yield
    except RuntimeError as error:
        if not _out_of_memory(error):
            raise
        where = "machine" if "DefaultCPUAllocator" in str(error) else "device"
        raise MemoryError(f"the {where} has no memory left ({str(error).splitlines()[0][:160]})") from None


def _out_of_memory(error: Exception) -> bool:
    """Say whether an error tells that memory is used up: torch, cuDNN and cuBLAS have words of their own for that."""
    return isinstance(error, RuntimeError) and (
        isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in _NO_MEMORY)
    )


@contextlib.contextmanager
def _numbers_only() -> Iterator[None]:
    """Let torch load nothing but numbers: nnU-Net asks it to load whatever there is, and a pickle can hold code."""
    load = torch.load

    def load_numbers(*arguments: Any, **options: Any) -> Any:
        return load(*arguments, **{**options, "weights_only": True})

    torch.load = load_numbers
    try:
        with torch.serialization.safe_globals(_NUMBERS):
            yield
    finally:
        torch.load = load


def _reason(error: Exception) -> str:
    """Say in one line why weights cannot be loaded."""
    text = str(error)
    if code := re.search(r"GLOBAL ([\w.]+)", text):
        return f"it holds more than numbers, {code[1]}, which was not run"
    if isinstance(error, pickle.UnpicklingError):
        return "it is no list of numbers"  # torch's own text tells how to run what is in it
    return text.splitlines()[0][:200] if text else type(error).__name__
