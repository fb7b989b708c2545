"""Ceph's own notifications start the work: `voxelmill bucket connect`, objects put by S3, and nothing else."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import aio_pika
import pydicom
import pytest
from pydicom.uid import generate_uid

from e2e.command import voxelmill
from voxelmill_shared.results import Receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from servers.ceph import CephGateway

EXCHANGE = "test.notifications"
SECONDS = 120
"""Ceph may take half a minute to begin with a new topic."""
pytestmark = [pytest.mark.rabbitmq, pytest.mark.s3]


def connect(bucket: str, broker: str, *options: str, **environment: str) -> Any:
    """Run the command, for what is put under `inbox/`; return its document."""
    ended = voxelmill(
        "bucket", "connect", f"s3://{bucket}/in box", "--broker", broker, "--exchange", EXCHANGE, "--json", *options,
        **environment,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    return ended.document


def states(document: Any) -> dict[str, str]:
    return {step["title"]: step["state"] for step in document["steps"]}


def test_connecting_twice_changes_nothing_the_second_time(
    rabbitmq_vhost_url: str, bucket: str, s3_environment: CephGateway
) -> None:
    """What others have set up is kept, and the plan says before what the run does."""
    client = s3_environment.client()
    theirs = {"ID": "theirs", "AllowedOrigins": ["https://their.example"], "AllowedMethods": ["GET"]}
    client.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [theirs]})
    expiry = {"ID": "expiry", "Filter": {"Prefix": "old/"}, "Status": "Enabled", "Expiration": {"Days": 30}}
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [expiry]})
    options = ("--cors-origin", "https://viewer.example")

    planned = connect(bucket, rabbitmq_vhost_url, *options, "--dry-run")
    assert not planned["carried_out"]
    assert set(states(planned).values()) == {"create", "change"}
    assert not client.get_bucket_notification_configuration(Bucket=bucket).get("TopicConfigurations")

    done = connect(bucket, rabbitmq_vhost_url, *options, "--yes")
    assert [step["done"] for step in done["steps"]] == [True] * len(planned["steps"])
    assert done["variables"]["VOXELMILL_AMQP_NOTIFICATIONS_EXCHANGE"] == EXCHANGE
    again = connect(bucket, rabbitmq_vhost_url, *options)  # nothing to do: no --yes is wanted
    assert set(states(again).values()) == {"stands"}, again["steps"]

    assert {rule["ID"] for rule in client.get_bucket_cors(Bucket=bucket)["CORSRules"]} == {"theirs", "voxelmill"}
    rules = client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert {rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation") for rule in rules} == {None, 7}
    (entry,) = client.get_bucket_notification_configuration(Bucket=bucket)["TopicConfigurations"]
    assert entry["Filter"]["Key"]["FilterRules"] == [{"Name": "prefix", "Value": "in box/"}]

    moved = connect(bucket, rabbitmq_vhost_url, "--push-endpoint", "amqp://u:p@broker.example:5672", "--yes")
    changed = [step["title"] for step in moved["steps"] if step["state"] == "change"]
    assert [title.split()[0] for title in changed] == ["topic", "notification"]
    client.close()


def test_a_password_without_tls_is_refused_in_one_line(
    rabbitmq_vhost_url: str, bucket: str, s3_environment: CephGateway
) -> None:
    """The gateway's own answer is InvalidInput; ours says why, what is done and what to do."""
    ended = voxelmill(
        *("bucket", "connect", f"s3://{bucket}", "--broker", rabbitmq_vhost_url, "--yes"),
        AWS_ENDPOINT_URL=s3_environment.plain_endpoint,
    )
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert "takes a broker's password over https only" in ended.err
    assert "done before it: 1, 2; not begun: 4" in ended.err


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture
def environment(rabbitmq_vhost_url: str, bucket: str, database: str, tmp_path: Path) -> dict[str, str]:
    """The settings of one installation, as `bucket connect` gives them; nothing lists the bucket."""
    told = connect(bucket, rabbitmq_vhost_url, "--yes", VOXELMILL_BROKER_URL=rabbitmq_vhost_url)
    return {
        **os.environ,
        "VOXELMILL_BROKER_URL": rabbitmq_vhost_url,
        "VOXELMILL_WORK_URL": f"s3://{bucket}/work",
        "VOXELMILL_RESULTS_URL": f"s3://{bucket}/results",
        "VOXELMILL_DATABASE_URL": database,
        "VOXELMILL_SCRATCH": str(tmp_path / "scratch"),
        "VOXELMILL_ORGAN": "lungs",
        "VOXELMILL_RECONCILE_SECONDS": "0",
        **told["variables"],
    }


@contextmanager
def running(names: Sequence[str], environment: dict[str, str]) -> Iterator[None]:
    """Run services until the end of the block; all must be ready before, and drain after it."""
    running, ports = {}, {name: free_port() for name in names}
    try:
        for name in names:
            running[name] = subprocess.Popen(
                [sys.executable, "-m", f"voxelmill_{name}"],
                env={**environment, "VOXELMILL_PORT": str(ports[name])},
                stderr=subprocess.PIPE,
                text=True,
            )
        deadline = time.monotonic() + SECONDS
        while not all(map(ready, ports.values())):
            ended = [process.communicate()[1] for process in running.values() if process.poll() is not None]
            assert not ended, ended
            assert time.monotonic() < deadline, "the services did not become ready"
            time.sleep(0.2)
        yield
    finally:
        for process in running.values():
            process.send_signal(signal.SIGTERM)
        said = {name: (process.communicate(timeout=60)[1], process.returncode) for name, process in running.items()}
    assert {name: code for name, (_, code) in said.items()} == dict.fromkeys(names, 0), said


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(json.load(answer)["ready"])
    except (urllib.error.URLError, ConnectionError):
        return False


def instance(path: Path, rows: int | None = None) -> bytes:
    """Make an instance of its own from one of the phantom; with so many rows it is one of megabytes."""
    dataset = pydicom.dcmread(path)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    if rows is not None:
        dataset.Rows = dataset.Columns = rows
        dataset.PixelData = bytes(rows * rows * 2)
    written = io.BytesIO()
    dataset.save_as(written)
    return written.getvalue()


def put_in_parts(client: Any, bucket: str, key: str, body: bytes) -> None:
    """Upload in parts of 5 MiB, the least that S3 has."""
    part_bytes = 5 << 20
    assert len(body) > part_bytes
    where = {"Bucket": bucket, "Key": key}
    upload = client.create_multipart_upload(**where)["UploadId"]
    parts = []
    for number, start in enumerate(range(0, len(body), part_bytes), start=1):
        sent = client.upload_part(
            **where, UploadId=upload, PartNumber=number, Body=body[start : start + part_bytes]
        )  # fmt: skip
        parts.append({"ETag": sent["ETag"], "PartNumber": number})
    client.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})


def test_objects_of_every_name_and_kind_of_upload_are_validated(
    environment: dict[str, str], bucket: str, s3_environment: CephGateway, series: Path
) -> None:
    """Ceph spells keys as they are, which no other source of this shape does; what lies elsewhere is not told of."""
    first = min(series.iterdir())
    client = s3_environment.client()
    singles = ["a b+é.dcm", "x%20y", "deep/er/💀.dcm", "plus+plus"]
    in_parts = ["parts a b+é.dcm", "parts%2Fx"]

    def put() -> None:
        client.put_object(Bucket=bucket, Key="elsewhere/a.dcm", Body=instance(first))
        for key in singles:
            client.put_object(Bucket=bucket, Key=f"in box/{key}", Body=instance(first))
        for key in in_parts:
            put_in_parts(client, bucket, f"in box/{key}", instance(first, rows=1700))

    with running(["ingest"], environment):
        validated = asyncio.run(validated_after(put, environment["VOXELMILL_BROKER_URL"], {*singles, *in_parts}))
    client.close()
    assert sorted(validated) == sorted([*singles, *in_parts])


async def validated_after(put: Callable[[], None], broker: str, expected: set[str]) -> list[str]:
    """Put objects, and give the keys that ingest found valid, as they come, when all that are expected have come."""
    validated: list[str] = []
    async with await aio_pika.connect(broker) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind("voxelmill.events", "object.validated.v1")
        await asyncio.to_thread(put)
        deadline = time.monotonic() + SECONDS
        while not expected <= set(validated):
            assert time.monotonic() < deadline, f"only {validated}"
            message = await queue.get(fail=False)
            if message is None:
                await asyncio.sleep(0.1)
            else:
                validated.append(json.loads(message.body)["data"]["object"]["key"])
    return validated


def test_a_series_put_into_the_bucket_comes_out_as_results(
    environment: dict[str, str], bucket: str, s3_environment: CephGateway, series: Path
) -> None:
    """Five services, no command, no listing: the receipt and every artefact in the bucket."""
    client = s3_environment.client()
    files = sorted(series.iterdir())
    with running(["ingest", "thumbnail", "segment", "mesh", "index"], environment):
        for path in files:
            client.put_object(Bucket=bucket, Key=f"in box/chest ct/{path.name}", Body=path.read_bytes())
        deadline = time.monotonic() + SECONDS
        while not (receipts := list(keys(client, bucket, "/receipt.json"))):
            assert time.monotonic() < deadline, list(keys(client, bucket, ""))
            time.sleep(0.5)
    assert len(receipts) == 1
    body = client.get_object(Bucket=bucket, Key=receipts[0])["Body"].read()
    receipt = Receipt.model_validate_json(body)
    assert len(receipt.inputs) == len(files)
    folder = receipts[0].removesuffix("receipt.json")
    lying = set(keys(client, bucket, ""))
    assert {f"{folder}{artefact.name}" for artefact in receipt.artefacts} <= lying
    assert {artefact.name.split("/")[0] for artefact in receipt.artefacts} >= {"thumbnails", "segmentation", "meshes"}
    client.close()


def keys(client: Any, bucket: str, ending: str) -> Iterator[str]:
    """List the results' keys with an ending."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="results/"):
        yield from (found["Key"] for found in page.get("Contents", ()) if found["Key"].endswith(ending))
