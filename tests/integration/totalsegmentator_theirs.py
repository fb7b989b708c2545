"""A process that asks the TotalSegmentator package for label maps: `totalsegmentator_theirs.py CASES.json`.

The package as it is, but for two things that change no label. A trainer's class is found without importing every other
trainer, for some of those need libraries that are not installed here. And the processes that nnU-Net starts for every
call are forked from one that has imported everything, where it would start them anew: 3 s each, of which the tests
would wait for fifty.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.process
import os
import sys
import tempfile
from pathlib import Path


def main() -> None:
    home = Path(tempfile.mkdtemp())
    (home / "config.json").write_text(
        json.dumps({"totalseg_id": "none", "send_usage_stats": False, "prediction_counter": 0})
    )
    os.environ["TOTALSEG_HOME_DIR"] = str(home)
    os.environ["TOTALSEG_WEIGHTS_PATH"] = os.environ["VOXELMILL_WEIGHTS"]
    # Nor are they forked from this process: torch's threads hold locks that a fork would never see released.
    multiprocessing.set_start_method("forkserver")
    # A library that they import catches SIGTERM and goes on: a pool that ends them would wait for ever.
    multiprocessing.process.BaseProcess.terminate = multiprocessing.process.BaseProcess.kill
    get_context = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: get_context("forkserver" if method == "spawn" else method)
    get_context("forkserver").set_forkserver_preload(["nnunetv2.inference.predict_from_raw_data"])

    import nibabel
    import numpy as np
    from totalsegmentator import nnunet
    from totalsegmentator.python_api import totalsegmentator

    from voxelmill_segment.totalsegmentator.trainers import find_trainer
    from voxelmill_shared.imaging.nifti import RAS_TO_LPS

    nnunet.recursive_find_trainer_class_by_name = find_trainer
    folder = Path(sys.argv[1]).parent
    for case in json.loads(Path(sys.argv[1]).read_text()):
        voxels = np.load(folder / f"{case['name']}.npy")
        affine = RAS_TO_LPS @ np.array(case["volume"]["affine"])
        image = nibabel.Nifti1Image(np.asfortranarray(voxels.T), affine)
        found = totalsegmentator(
            image,
            None,
            ml=True,
            device="cpu",
            quiet=True,
            nr_thr_saving=1,
            force_split=case["split"],
            **case["arguments"],
        )
        np.save(folder / f"{case['name']}.theirs.npy", np.asanyarray(found.dataobj).T)


if __name__ == "__main__":
    main()
