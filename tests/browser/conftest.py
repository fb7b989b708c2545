"""One visit to the page in a real browser, over a real installation: `visit` is what was seen."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, generate_uid

from conftest import missing
from e2e.background import background
from e2e.runs import COARSE
from e2e.sharing import once
from voxelmill_cli.phantom import make_phantom
from voxelmill_cli.phantom_dicom import write_series
from voxelmill_gateway.page import STATIC

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OLDEST_NODE = 20
MODULES = STATIC.parents[2] / "page" / "node_modules"
STORY = Path(__file__).with_name("story.mjs")
PICTURES = "VOXELMILL_TEST_PICTURES"
"""The environment variable that names the folder for the pictures that are taken."""


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's program; Node.js, what drives the browser, and the built page are there too."""
    node = shutil.which("node")
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout if node else "v0"
    if int(said.strip().lstrip("v").partition(".")[0]) < OLDEST_NODE:
        missing(f"no Node.js {OLDEST_NODE} or newer here, which drives the browser (apt-get install nodejs)")
    if not (STATIC / "index.html").is_file() or not (MODULES / "playwright-core").is_dir():
        missing("the page is not built (make page)")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        missing("no Chromium here (apt-get install chromium)")
    return str(found)


def spoil(source: Path, target: Path) -> None:
    """Write an instance of another series, whose header is in order and whose pixels nobody can decode."""
    instance = pydicom.dcmread(source)
    instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["spoilt", "1"])
    instance.SeriesInstanceUID = generate_uid(entropy_srcs=["spoilt", "2"])
    instance.SeriesDescription = "Spoilt in transfer"
    instance.file_meta.TransferSyntaxUID = JPEG2000Lossless
    instance.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(996)])
    instance["PixelData"].is_undefined_length = True
    instance.save_as(target, enforce_file_format=True)


@pytest.fixture(scope="session")
def visit(chromium, tmp_path_factory) -> dict[str, Any]:
    """Upload a folder, look at what becomes of it, and return what was seen. One visit serves every test."""
    made, seen = once(tmp_path_factory, "browser", partial(_visit, chromium))
    return {**seen, "pictures": Path(os.environ.get(PICTURES) or made / "pictures")}


def _visit(chromium: str, made: Path) -> dict[str, Any]:
    folder = made / "study"
    write_series(folder / "chest ct", make_phantom(COARSE))
    first = min((folder / "chest ct").iterdir())
    spoil(first, folder / "spoilt.dcm")
    (folder / "cut off.dcm").write_bytes(first.read_bytes()[:3000])
    pictures = Path(os.environ.get(PICTURES) or made / "pictures")
    for name in (pictures, made / "profile"):
        name.mkdir(parents=True, exist_ok=True)
    arguments = ("up", "--data", made / "data", "--port", "0")
    with background(*arguments, VOXELMILL_GEOMETRY_SECONDS="1") as up:
        address = up.line_with("http://").split(" on ")[1].split(";")[0]
        order = {
            "address": address,
            "chromium": chromium,
            "folder": str(folder),
            "profile": str(made / "profile"),
            "pictures": str(pictures),
            "forPeople": PICTURES in os.environ,
        }
        story = subprocess.run(
            ["node", str(STORY), json.dumps(order)], capture_output=True, text=True, timeout=200, check=False
        )
        up.end(signal.SIGTERM)
    assert story.returncode == 0, f"{story.stderr}\npictures in {pictures}\n{up.errors}"
    return dict(json.loads(story.stdout))
