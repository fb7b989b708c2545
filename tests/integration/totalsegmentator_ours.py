"""A process that asks our segmenter for label maps: `totalsegmentator_ours.py CASES.json`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from voxelmill_segment.segmenter import open_segmenter
from voxelmill_shared.imaging.volume import Volume
from voxelmill_shared.plan import Plan


def main() -> None:
    from voxelmill_segment.totalsegmentator.home import prepare_home

    prepare_home(Path("unset"))
    from voxelmill_segment.totalsegmentator import chain

    limits = chain.SPLIT_VOXELS, chain.SPLIT_SLICES
    folder = Path(sys.argv[1]).parent
    for case in json.loads(Path(sys.argv[1]).read_text()):
        volume = Volume(
            np.load(folder / f"{case['name']}.npy"), np.array(case["volume"]["affine"]), case["volume"]["modality"]
        )
        plan = Plan.model_validate({"model": "totalsegmentator", **case["plan"]})
        chain.SPLIT_VOXELS, chain.SPLIT_SLICES = (0, 0) if case["split"] else limits
        seen: list[object] = []
        begun = time.process_time()
        found = open_segmenter(plan).segment(volume, plan, seen.append)
        np.save(folder / f"{case['name']}.ours.npy", found.labels)
        (folder / f"{case['name']}.ours.json").write_text(
            json.dumps(
                {
                    "warnings": found.warnings,
                    "facts": found.facts,
                    "told": [str(one) for one in seen],
                    "cpu_seconds": time.process_time() - begun,
                }
            )
        )


if __name__ == "__main__":
    main()
