"""A child process that reads series with one tool, job after job: a crash or a hang of the tool ends only this process.

usage: python bench/peers/worker.py TOOL, in the environment that the tool is installed in. A job is a JSON line on
standard input, its answer a JSON line on what was standard output when the process began; whatever the tool itself
prints goes to standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from pathlib import Path

from answers import crashed

MODULES = {
    "voxelmill": "voxelmill_tool",
    "SimpleITK": "simpleitk_tool",
    "dcm2niix": "dcm2niix_tool",
    "dicom2nifti": "dicom2nifti_tool",
    "highdicom": "highdicom_tool",
    "referee": "referee",
}


def main() -> None:
    """Answer jobs until there are none."""
    warnings.simplefilter("ignore")  # what a library says to its programmers is no word to its user
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    tool = importlib.import_module(MODULES[sys.argv[1]])
    for line in sys.stdin:
        job = json.loads(line)
        try:
            answer = tool.read([Path(path) for path in job["paths"]], Path(job["output"]))
        except Exception as error:  # noqa: BLE001 - the edge of every tool: what is no refusal of its own is a crash
            answer = crashed(error)
        sys.stderr.flush()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
