"""A home of its own for the TotalSegmentator package, so that it reads no settings of a user, and calls nobody.

The package reads its settings (`config.json`, which switches its statistics off; there is no variable that would) and
its weights' place at import and at each run, writes a configuration into the user's home where it finds none, sets the
variables `nnUNet_*`, and downloads weights that it misses. Here all of that is answered before it is imported.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxelmill_segment.totalsegmentator.weights import MissingWeightsError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = "voxelmill-totalsegmentator-"
_CACHES = {
    # Each of these is a folder that a library beneath makes in the user's home when it is first used.
    "MPLCONFIGDIR": "matplotlib",
    "TORCH_HOME": "torch",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "XDG_CACHE_HOME": "cache",
    "XDG_CONFIG_HOME": "config",
}
_NNUNET = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")

_prepared: Path | None = None


def prepare_home(weights: Path, folder: Path | None = None, license_number: str = "") -> Path:
    """Give the package a private home with its statistics off. To be called before the package is imported.

    Parameters
    ----------
    weights
        The folder that holds `Dataset…` folders.
    folder
        Where to make the home; by default a new folder among the temporary ones, which is removed at the end of the
        process. What a killed process has left there is removed by the next.
    license_number
        Of a licence for the tasks that need one; the package looks for it in its configuration.

    Returns
    -------
    Path
        The home. Repeated calls return the first one's and set the weights' folder and the licence anew.
    """
    global _prepared  # noqa: PLW0603 - the environment of the process, which this function sets, is as global
    if _prepared is None:
        if folder is None:
            _remove_left_over()
            folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
            atexit.register(_remove, folder, os.getpid())
        _prepared = folder
        for variable, name in _CACHES.items():
            os.environ[variable] = str(folder / name)
        # Threads that wait for others shall sleep: where more processes than ours want the cores, those that spin take
        # more of them than the work (1.6 s of processor time for a volume at 6 mm, 0.64 s asleep).
        os.environ.setdefault("GOMP_SPINCOUNT", "0")
        # torch gives a tile's activations back to the system after every tile and asks for them again. In pages of
        # 4 KiB that takes more of the processor than a tiny network does (0.35 s a tile in all, in large ones 0.16 s).
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    (_prepared / "work").mkdir(parents=True, exist_ok=True)  # each time: some machines clear old temporary files
    os.environ["TOTALSEG_HOME_DIR"] = str(_prepared)
    os.environ["TOTALSEG_WEIGHTS_PATH"] = str(weights)
    configuration = {
        "totalseg_id": "totalseg_none",
        "send_usage_stats": False,
        "prediction_counter": 0,
        "statistics_disclaimer_shown": True,
    }
    if license_number:
        configuration["license_number"] = license_number
    (_prepared / "config.json").write_text(json.dumps(configuration, indent=1), encoding="utf-8")
    for variable in _NNUNET:
        # nnU-Net reads these at import and warns where one is missing. It writes to none of them in inference.
        os.environ[variable] = str(weights)
    return _prepared


def work_folder() -> Path:
    """Return the folder of the home for the temporary files of a run.

    Raises
    ------
    RuntimeError
        If no home was prepared.
    """
    if _prepared is None:
        raise RuntimeError("prepare_home() comes before any use of the TotalSegmentator package")
    return _prepared / "work"


@contextlib.contextmanager
def contained() -> Iterator[Path]:
    """Let what runs within make its temporary files in the home, and keep the variables of nnU-Net as they are.

    Yields
    ------
    Path
        The folder of temporary files. It is emptied at the end, whatever happened.
    """
    folder = work_folder()
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    variables = {name: os.environ.get(name) for name in _NNUNET}
    try:
        yield folder
    finally:
        tempfile.tempdir = before
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        for entry in folder.iterdir():
            shutil.rmtree(entry, ignore_errors=True)
            entry.unlink(missing_ok=True)


def refuse_downloads() -> None:
    """Let the package's functions that download weights say instead which weights are missing.

    They count as there where their folder exists, so this also keeps the package from removing folders that it takes
    for old ones, as its own function does.
    """
    modules = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("totalsegmentator") and hasattr(module, "download_pretrained_weights")
    ]
    for module in modules:
        vars(module)["download_pretrained_weights"] = _refuse_download


def _refuse_download(task_id: Any) -> None:
    from totalsegmentator.map_tasks_config import TASK_ID_WEIGHTS_CONFIGS  # noqa: PLC0415 - after the home is prepared

    about = TASK_ID_WEIGHTS_CONFIGS.get(task_id)
    if about is None:
        raise MissingWeightsError((str(task_id),), Path(os.environ["TOTALSEG_WEIGHTS_PATH"]))
    folder = Path(os.environ["TOTALSEG_WEIGHTS_PATH"], about.get("rel_path", ""), about["foldername"])
    if not folder.is_dir():
        raise MissingWeightsError((about["foldername"],), folder.parent)


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a process that was forked from it
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left_over() -> None:
    """Remove the homes of processes that were killed: a run's temporary files hold a patient's voxels."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        with contextlib.suppress(FileNotFoundError):  # another process removes it just now
            if owner.isdigit() and not _lives(int(owner)) and folder.stat().st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
