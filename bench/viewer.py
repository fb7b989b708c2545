"""How long until a series is seen in the browser, and how many bytes does that take?

`voxelmill up` works on a phantom chest CT of 512 x 512 x 120; then a browser that has seen nothing before opens its
page, some times. Seconds from the start of the navigation to the first useful pictures, to the preview of the volume on
the canvas, to the surfaces and to the volume as a whole; bytes as they come over the wire until then. Loopback and
Debian's Chromium with WebGL in software: with a graphics card the later figures are smaller.

usage: python bench/viewer.py    VOXELMILL_BENCH_RUNS (5)
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from report import Aim, end, table
from voxelmill_cli.phantom import PhantomPlan, make_phantom
from voxelmill_cli.phantom_dicom import write_series
from voxelmill_gateway.page import STATIC

if TYPE_CHECKING:
    from collections.abc import Iterator

RUNS = int(os.environ.get("VOXELMILL_BENCH_RUNS", "5"))
FIRST_PICTURE_SECONDS = 2.0
_WORK_SECONDS = 900
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_MEASURE = Path(__file__).parents[1] / "tests" / "browser" / "measure.mjs"
_PARTS = ("first pictures", "preview on the canvas", "surfaces", "full resolution")


@contextmanager
def installation(data: Path) -> Iterator[str]:
    """Run `voxelmill up` on a folder and give its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "voxelmill_cli", "up", "--data", str(data), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        line = next((line for line in process.stdout or () if "http://" in line), "")
        yield f"http://{line.partition('http://')[2].partition(';')[0].strip()}"
    finally:
        process.terminate()
        process.communicate(timeout=60)


def worked_on(address: str) -> str:
    """Wait until the one series is complete; return its Series Instance UID."""
    deadline = time.monotonic() + _WORK_SECONDS
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{address}/series?status=complete", timeout=30) as answer:  # noqa: S310 - loopback
            items = json.load(answer)["items"]
        if items:
            return str(items[0]["series_instance_uid"])
        time.sleep(1)
    sys.exit(f"the series was not complete after {_WORK_SECONDS} s")


def measured(address: str, series: str, browser: str, profile: Path) -> list[dict[str, Any]]:
    """Open the series' page in fresh browsers."""
    order = {"address": address, "chromium": browser, "series": series, "profile": str(profile), "runs": RUNS}
    done = subprocess.run(["node", str(_MEASURE), json.dumps(order)], stdout=subprocess.PIPE, text=True, check=True)
    runs: list[dict[str, Any]] = json.loads(done.stdout)
    return runs


def main() -> None:
    """Measure, and print a table and the last line."""
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None or shutil.which("node") is None or not (STATIC / "index.html").is_file():
        sys.exit("this needs Chromium, Node.js and the built page: apt-get install chromium nodejs, then make page")
    with tempfile.TemporaryDirectory(prefix="voxelmill-viewer-") as made:
        folder = Path(made)
        write_series(folder / "data" / "inbox" / "chest ct", make_phantom(PhantomPlan()))
        with installation(folder / "data") as address:
            runs = measured(address, worked_on(address), browser, folder / "profiles")
    seconds = {part: [run["seconds"][part] for run in runs] for part in _PARTS}
    megabytes = {part: statistics.median(run["bytes"][part] for run in runs) / 1e6 for part in _PARTS}
    rows = [
        [part, f"{statistics.median(seconds[part]):.2f}", f"{max(seconds[part]):.2f}", f"{megabytes[part]:.2f}"]
        for part in _PARTS
    ]
    table(["until", "s, median", "s, worst", "MB until then"], rows)
    print()
    kinds = runs[-1]["kinds"]
    table(["kind", "MB"], [[kind, f"{size / 1e6:.2f}"] for kind, size in sorted(kinds.items())])
    first = statistics.median(seconds["first pictures"])
    end(
        "viewer",
        {"first picture, seconds": Aim(first, FIRST_PICTURE_SECONDS, at_most=True)},
        {"runs": RUNS, "seconds": seconds, "megabytes": megabytes, "kinds": kinds},
    )


if __name__ == "__main__":
    main()
