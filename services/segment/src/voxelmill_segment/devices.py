"""Which devices this worker computes on: one child process for each (`equipment` tells it which).

Nothing here loads torch, which takes seconds and a quarter of a gigabyte: the service's own process has no use for it.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path

DEVICE_VARIABLE = "VOXELMILL_SEGMENT_DEVICE"
_DEVICES = re.compile(r"auto|cpu|mps|cuda|cuda:\d+(,cuda:\d+)*")


def check_devices(value: str) -> str:
    """Return the setting as it is meant, in lower case and without spaces.

    Raises
    ------
    ValueError
        If it names no device, or one twice.
    """
    value = "".join(value.lower().split())
    if not _DEVICES.fullmatch(value):
        raise ValueError("write auto, cpu, mps, cuda, or GPUs by their numbers as in cuda:0,cuda:1")
    names = value.split(",")
    if len(set(names)) < len(names):
        raise ValueError("a GPU stands there twice; each has one child")
    return value


def devices(setting: str, concurrency: int = 1) -> tuple[str, ...]:
    """Name the device of each child that computes.

    Parameters
    ----------
    setting
        As `check_devices` returns it. `auto`: every NVIDIA GPU that is visible, where torch is installed for them; else
        an Apple GPU; else the processor. If it says cpu where there is a GPU (WSL2 shows none as a device file), name
        the GPU.
    concurrency
        How many children a CPU has; a GPU has one.
    """
    if setting == "auto":
        if visible_gpus() and _torch() == "cuda":
            setting = "cuda"
        elif sys.platform == "darwin" and platform.machine() == "arm64" and _torch():
            setting = "mps"
        else:
            setting = "cpu"
    if setting == "cpu":
        return ("cpu",) * concurrency
    if setting == "cuda":
        return tuple(f"cuda:{number}" for number in range(max(1, visible_gpus())))
    return tuple(setting.split(","))


def visible_gpus() -> int:
    """Count the NVIDIA GPUs that a process of ours may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return len(list(Path("/dev").glob("nvidia[0-9]*")))
    names = [name.strip() for name in visible.split(",")]
    return len(names[: names.index("-1")] if "-1" in names else [name for name in names if name])


def _torch() -> str:
    """Say what the installed torch is built for: `cuda`, `cpu`, or nothing where there is none."""
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return ""
    return "cpu" if version.endswith("+cpu") else "cuda"
