"""Trying the images: every service runs in its own on real servers, and two small series go through.

Needs root and buildah, whose isolation by chroot works where no container may be started; the images must stand in its
storage. The servers are those of `make up`, in a folder that is removed at the end.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from containers.build import EXTRA, ROOT, SERVICES, tag_of
from containers.container import Container
from containers.engines import ImagesError, find_engine
from stack.folder import Folder
from stack.ports import free_ports
from stack.say import read_env
from voxelmill_cli.phantom import PhantomPlan, make_phantom
from voxelmill_cli.phantom_dicom import write_series

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 180.0
"""How long anything may take."""
SERIES = ("cold", "warm")
"""The second one finds the inner loops compiled."""


def check_images(tag: str, torch: str | None = None, weights: Path | None = None) -> None:
    """Start each service in its image, send two series through, end all by SIGTERM, and print what was seen.

    Parameters
    ----------
    torch
        `cuda` or `cpu`: segment's image is the one with TotalSegmentator on that build of torch, and that model does
        the work, at its lowest resolution.
    weights
        The folder of its weights.

    Raises
    ------
    ImagesError
        If something is missing, does not start, does not come out right, or does not end with exit code 0.
    """
    if os.geteuid() != 0:
        raise ImagesError("trying the images needs root, for chroot; use sudo")
    if torch and (weights is None or not weights.is_dir()):
        raise ImagesError("trying TotalSegmentator needs weights; name their folder by --weights", 2)
    engine = find_engine("buildah")
    images = {name: tag_of(name, tag, torch if name == "segment" else None) for name in SERVICES}
    sizes = {name: engine.size(image) for name, image in images.items()}
    for name, size in sizes.items():
        if size is None:
            raise ImagesError(f"there is no image {images[name]}; run tools/images --engine buildah --tag {tag}", 2)
    with ExitStack() as stack:
        variables = stack.enter_context(_servers())
        containers, ready = {}, {}
        for name in SERVICES:
            container = Container(engine, name, images[name], free_ports(1))
            stack.callback(container.remove)
            folders = {weights.absolute(): "/weights"} if torch and weights and name == "segment" else {}
            container.start(_environment(variables, container.port, EXTRA if torch else ""), folders)
            containers[name] = container
            ready[name] = container.wait_until_ready(SECONDS)  # one after the other, or they would share the cores
        idle = {name: container.memory() for name, container in containers.items()}
        known: set[str] = set()
        stages = [_one_series(variables, number, containers, known) for number in range(len(SERIES))]
        users = {name: container.user() for name, container in containers.items()}
        strays = {name: container.written_outside_scratch() for name, container in containers.items()}
        codes = {name: container.stop(SECONDS) for name, container in containers.items()}
    print(f"{'service':10} {'image':>8} {'ready':>7} {'idle':>8} {'user':>6} {'ended':>6}  written outside /scratch")
    for name in SERVICES:
        seen = f"{sizes[name]:>8} {ready[name]:>5.1f} s {idle[name] >> 20:>4} MiB {users[name]:>6} {codes[name]:>6}"
        print(f"{name:10} {seen}  {', '.join(strays[name]) or 'nothing'}")
    for when, seconds in zip(SERIES, stages, strict=True):
        print(f"{when}: " + ", ".join(f"{stage} {spent:.1f} s" for stage, spent in seconds.items()))
    if 0 in users.values() or any(codes.values()) or any(strays.values()):
        raise ImagesError("not every service ran as another user than root, kept to /scratch and ended with code 0", 1)


@contextmanager
def _servers() -> Iterator[dict[str, str]]:
    """Start RabbitMQ, SeaweedFS and PostgreSQL without any service; give the variables that lead there."""
    folder = Path(tempfile.mkdtemp(prefix="voxelmill-images-"))
    command = [sys.executable, "-m", "stack", "--dir", str(folder / "stack")]
    none = " ".join(f"{name}=0" for name in SERVICES)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    try:
        done = subprocess.run(
            [*command, "--scale", none, "up"], capture_output=True, text=True, env=environment, check=False
        )
        if done.returncode:
            raise ImagesError(f"{done.stderr.strip()}; run tools/setup stack", done.returncode)
        try:
            yield read_env(Folder(folder / "stack"))
        finally:
            subprocess.run([*command, "down"], capture_output=True, env=environment, check=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _environment(variables: dict[str, str], port: int, model: str) -> dict[str, str]:
    return {
        **({"VOXELMILL_MODEL": model, "VOXELMILL_RESOLUTION": "fastest"} if model else {}),
        **{name: value for name, value in variables.items() if name != "VOXELMILL_SCRATCH"},
        "VOXELMILL_HOST": "127.0.0.1",
        "VOXELMILL_PORT": str(port),
        "VOXELMILL_GEOMETRY_SECONDS": "1",
    }


def _one_series(
    variables: dict[str, str], number: int, containers: dict[str, Container], known: set[str]
) -> dict[str, float]:
    """Put a phantom's slices into the inbox, wait for the receipt, check every artefact; return the stages' seconds."""
    store = boto3.client(
        "s3",
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        region_name=variables["AWS_REGION"],
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    plan = PhantomPlan(seed=number, rows=112, columns=112, slices=44, pixel_mm=3.4, slice_mm=7.0)
    with tempfile.TemporaryDirectory(prefix="voxelmill-series-") as folder:
        for path in write_series(Path(folder), make_phantom(plan)):
            store.upload_file(str(path), "inbox", f"{number}/{path.name}")
    deadline = time.monotonic() + SECONDS
    while not (new := _receipts(store) - known):
        ended = [name for name, container in containers.items() if not container.is_alive()]
        if ended or time.monotonic() > deadline:
            reason = f"{ended[0]} ended" if ended else f"not done after {SECONDS:g} s"
            said = "\n".join(containers[name].said() for name in ended or containers)
            raise ImagesError(f"{said}\nseries {number} did not come through: {reason}; the logs are above", 1)
        time.sleep(0.2)
    (key,) = new
    known |= new
    receipt = json.loads(store.get_object(Bucket="results", Key=key)["Body"].read())
    _check_artefacts(store, key.rpartition("/")[0], receipt)
    store.close()
    if receipt["status"] != "complete":
        raise ImagesError(f"series {number} ended as {receipt['status']}: {receipt['stages']}", 1)
    return {name: _seconds(stage) for name, stage in receipt["stages"].items()}


def _seconds(stage: dict[str, Any]) -> float:
    began, ended = (datetime.fromisoformat(stage[name]) for name in ("started", "finished"))
    return (ended - began).total_seconds()


def _receipts(store: Any) -> set[str]:
    pages = store.get_paginator("list_objects_v2").paginate(Bucket="results")
    keys = (found["Key"] for page in pages for found in page.get("Contents", ()))
    return {key for key in keys if key.endswith("/receipt.json")}


def _check_artefacts(store: Any, prefix: str, receipt: dict[str, Any]) -> None:
    for artefact in receipt["artefacts"]:
        body = store.get_object(Bucket="results", Key=f"{prefix}/{artefact['name']}")["Body"].read()
        if hashlib.sha256(body).hexdigest() != artefact["sha256"]:
            raise ImagesError(f"{artefact['name']} is not what the receipt says; look at the stage's log", 1)
    print(
        f"{len(receipt['artefacts'])} artefacts of {len(receipt['inputs'])} instances, with their digests", flush=True
    )
