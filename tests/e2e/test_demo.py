"""`voxelmill demo --serve`: the phantom that was worked on is what the gateway shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

TESTS = Path(__file__).parents[1]
DEMO = """
import sys
import voxelmill_cli.demo
from e2e.runs import SMALL
from voxelmill_cli.__main__ import main
voxelmill_cli.demo.PhantomPlan = lambda: SMALL
sys.argv[0] = "voxelmill"
main()
"""
"""The command with a smaller phantom: its own one takes half a minute."""


def test_the_demo_shows_its_own_results(tmp_path):
    """The worklist and DICOMweb have the phantom's study, with its segmentation beside it, and its bytes."""
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", DEMO, "demo", "--output", str(tmp_path / "demo"), "--serve"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
        )
        try:
            line = next((line for line in process.stdout if "look at it on http://" in line), None)
            assert line is not None, (tmp_path / "errors").read_text()
            address = line.split("look at it on ")[1].split(";")[0]
            (study,) = json.load(urlopen(f"{address}/dicomweb/studies"))
            assert study["00080061"]["Value"] == ["CT", "SEG"]
            (series,) = json.load(urlopen(f"{address}/series?derived=false"))["items"]
            assert (series["instances"], series["job"]["status"]) == (10, "complete")
            path = f"studies/{study['0020000D']['Value'][0]}/series/{series['series_instance_uid']}"
            assert urlopen(f"{address}/dicomweb/{path}").status == 200
        finally:
            process.terminate()
            process.communicate(timeout=60)
