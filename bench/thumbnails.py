"""What do the thumbnails of a CT slice cost, 256 and 64 pixels, and how good are they?

Decoded slices of a real series. Voxelmill's own functions beside the plain way (float64 window, Lanczos, WebP as it
comes), dcmtk's `dcmj2pnm` and Orthanc's rendering, which write PNG from uncompressed files. CPU time per slice of all
threads and processes, medians of interleaved rounds; PSNR of what was written against a float64 window and Lanczos
reduction at the same size that nothing has rounded.

usage: python bench/thumbnails.py    VOXELMILL_BENCH_RUNS (5)
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
from PIL import Image

import syntaxes
from report import Aim, end, table
from volumes import data_folder
from voxelmill_shared.imaging import read_frames
from voxelmill_thumbnail.picture import picture_of, write_thumbnails

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from voxelmill_shared.imaging import Frame

RUNS = int(os.environ.get("VOXELMILL_BENCH_RUNS", "5"))
SIZES = (256, 64)
CENTRE, WIDTH = 40.0, 400.0
SLICES = 12
_ORTHANC = "/usr/sbin/Orthanc"
_START_SECONDS = 60

Outcome = tuple[float, dict[int, "NDArray[np.float64]"]]
"""CPU seconds, and the pictures by size."""


def windowed(stored: NDArray[np.uint16]) -> NDArray[np.float64]:
    """Grey levels, not rounded (PS3.3 C.11.2.1.2.1)."""
    values = stored.astype(np.float64) + syntaxes.INTERCEPT
    return np.clip((values - (CENTRE - 0.5)) / (WIDTH - 1) + 0.5, 0, 1) * 255


def reference(stored: NDArray[np.uint16], size: int) -> NDArray[np.float64]:
    """Return the picture that nothing has rounded."""
    image = Image.fromarray(windowed(stored).astype(np.float32))
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS), np.float64)


def psnr(picture: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """Peak signal to noise in dB; the reference is cut to 0 to 255, as any picture is."""
    error = float(np.mean((picture - truth.clip(0, 255)) ** 2))
    return 10 * float(np.log10(255**2 / max(error, 1e-9)))


def opened(source: Path | BytesIO) -> NDArray[np.float64]:
    """Decode a picture to grey levels."""
    with Image.open(source) as image:
        return np.asarray(image.convert("L"), np.float64)


def ours(frame: Frame, folder: Path) -> Outcome:
    """Voxelmill's way."""
    spent = time.process_time()
    paths = write_thumbnails(picture_of(frame), folder, "ours")
    spent = time.process_time() - spent
    return spent, {size: opened(path) for size, path in zip(SIZES, paths, strict=True)}


def plain(stored: NDArray[np.uint16], folder: Path) -> Outcome:
    """Float64, Lanczos from the whole slice for each size, WebP as Pillow writes it."""
    spent = time.process_time()
    image = Image.fromarray(np.rint(windowed(stored)).astype(np.uint8))
    for size in SIZES:
        image.resize((size, size), Image.Resampling.LANCZOS).save(folder / f"plain-{size}.webp", "WEBP")
    spent = time.process_time() - spent
    return spent, {size: opened(folder / f"plain-{size}.webp") for size in SIZES}


def dcmtk(file: Path, folder: Path) -> Outcome:
    """One `dcmj2pnm` for each size."""
    before = os.times()
    for size in SIZES:
        target = folder / f"dcmtk-{size}.png"
        command = ["dcmj2pnm", "+on", "+Wi", "1", "+Sxv", str(size), str(file), str(target)]
        subprocess.run(command, check=True, capture_output=True)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return spent, {size: opened(folder / f"dcmtk-{size}.png") for size in SIZES}


class Orthanc:
    """A server of our own on the loopback interface."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self._port = port
        self._process = psutil.Process(process.pid)

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Make one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request(method, path, body, {"Accept": "image/png, application/json"})
            response = connection.getresponse()
            data = response.read()
            if response.status != 200:
                raise RuntimeError(f"Orthanc answers {response.status} to {method} {path}")
            return data
        finally:
            connection.close()

    def render(self, instance: str) -> Outcome:
        """Ask for both sizes."""
        before = self._process.cpu_times()
        pictures = {
            size: self.ask("GET", f"/instances/{instance}/rendered?width={size}&height={size}&smooth=1")
            for size in SIZES
        }
        after = self._process.cpu_times()
        spent = after.user + after.system - before.user - before.system
        return spent, {size: opened(BytesIO(picture)) for size, picture in pictures.items()}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def orthanc(folder: Path) -> Iterator[Orthanc]:
    """Start a private Orthanc and end it."""
    port = _free_port()
    settings = {
        "StorageDirectory": str(folder / "orthanc"),
        "IndexDirectory": str(folder / "orthanc"),
        "HttpPort": port,
        "HttpBindAddresses": ["127.0.0.1"],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomServerEnabled": False,
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    process = subprocess.Popen(
        [_ORTHANC, str(folder / "orthanc.json")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    server = Orthanc(port, process)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                server.ask("GET", "/system")
                break
            except (OSError, http.client.HTTPException, RuntimeError):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("Orthanc does not answer: is its package whole?") from None
                time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=30)


def files_of(stored: NDArray[np.uint16], folder: Path) -> list[Path]:
    """Write the slices as uncompressed files that name the window."""
    files, _ = syntaxes.write(stored, "uncompressed", {"WindowCenter": CENTRE, "WindowWidth": WIDTH})
    paths = []
    for number, file in enumerate(files):
        path = folder / f"slice-{number:02}.dcm"
        path.write_bytes(file)
        paths.append(path)
    return paths


def main() -> None:
    """Measure and print."""
    for program in ("dcmj2pnm", _ORTHANC):
        if not shutil.which(program):
            print(f"{program} is not installed: run tools/setup peers and try again", file=sys.stderr)
            raise SystemExit(3)
    chest = sorted((data_folder() / "ct_chest_lidc0314_2mm_j2k").iterdir())
    every = syntaxes.real_slices(chest, len(chest))
    stored = every[np.linspace(0, len(every) - 1, SLICES).astype(int)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="voxelmill-bench-")))
        server = stack.enter_context(orthanc(folder))
        paths = files_of(stored, folder)
        frames = [read_frames(path)[0] for path in paths]
        names = [json.loads(server.ask("POST", "/instances", path.read_bytes()))["ID"] for path in paths]
        ways: dict[str, list[Callable[[], Outcome]]] = {
            "voxelmill": [partial(ours, frame, folder) for frame in frames],
            "float64, Lanczos, WebP": [partial(plain, cells, folder) for cells in stored],
            "dcmj2pnm (PNG)": [partial(dcmtk, path, folder) for path in paths],
            "Orthanc (PNG)": [partial(server.render, name) for name in names],
        }
        costs: dict[str, list[float]] = {name: [] for name in ways}
        quality: dict[str, dict[int, list[float]]] = {name: {size: [] for size in SIZES} for name in ways}
        for run in range(RUNS + 1):  # the first warms up
            for name, calls in ways.items():
                outcomes = [call() for call in calls]
                if run:
                    costs[name].append(sum(spent for spent, _ in outcomes) / len(outcomes))
                    continue
                for cells, (_, pictures) in zip(stored, outcomes, strict=True):
                    for size, picture in pictures.items():
                        quality[name][size].append(psnr(picture, reference(cells, size)))
    figures = {
        name: {
            "cpu_ms": 1000 * statistics.median(costs[name]),
            **{f"psnr_{size}": statistics.mean(quality[name][size]) for size in SIZES},
        }
        for name in ways
    }
    table(
        ["way", "CPU ms per slice", *(f"PSNR at {size}" for size in SIZES)],
        [
            [name, f"{one['cpu_ms']:.2f}", *(f"{one[f'psnr_{size}']:.1f}" for size in SIZES)]
            for name, one in figures.items()
        ],
    )
    mine, theirs = figures["voxelmill"], figures["float64, Lanczos, WebP"]
    end(
        "thumbnails",
        {
            "cpu_ms": Aim(mine["cpu_ms"], 3.5, at_most=True),
            **{
                f"psnr_{size}_over_plain": Aim(mine[f"psnr_{size}"] - theirs[f"psnr_{size}"], 0, at_most=False)
                for size in SIZES
            },
        },
        {"slices": SLICES, "runs": RUNS, "ways": figures},
    )


if __name__ == "__main__":
    main()
