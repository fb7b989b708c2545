"""TotalSegmentator's Python API in one process that has imported everything, job after job.

A job is a JSON line with `path`, `output` and `arguments` of `totalsegmentator()`; the answer comes when the label map
is written. As in `totalsegmentator_command`, the trainer's module is found by its text.
"""

from __future__ import annotations

import json
import os
import sys

from totalsegmentator.python_api import totalsegmentator


def main() -> None:
    """Answer jobs until there are none."""
    from totalsegmentator import nnunet  # noqa: PLC0415 - not in the processes that nnU-Net starts, which import this

    from voxelmill_segment.totalsegmentator.trainers import find_trainer  # noqa: PLC0415 - as above

    nnunet.recursive_find_trainer_class_by_name = find_trainer
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        job = json.loads(line)
        totalsegmentator(job["path"], job["output"], ml=True, quiet=True, **job["arguments"])
        answers.write("{}\n")
        answers.flush()


if __name__ == "__main__":
    main()
