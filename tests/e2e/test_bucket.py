"""An object put is enough: objects go into a bucket by any S3 client, and their series is handed on. Nothing else is done.

Three ways lead from the put to ingest, each of them alone here: SeaweedFS's webhook, its filer's stream, and, with both
off, the reconciler. Which of them found the objects is read from ingest's metrics. What comes after ingest is the same
whoever found them: `test_stack` and `test_scale` go from a put all the way to results.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from contextlib import contextmanager

import pydicom
import pytest

from e2e.command import voxelmill
from e2e.processes import free_port, metrics, running, wait_until_ready
from servers.seaweedfs import S3Server, start, weed_program
from voxelmill_shared.events import Envelope, ObjectValidated, SeriesValidated, open_envelope
from voxelmill_shared.transport.connect import open_transport
from voxelmill_shared.transport.topology import INDEX, TOPOLOGY

pytestmark = [pytest.mark.rabbitmq, pytest.mark.s3, pytest.mark.postgresql]

PART = 5 << 20
SECONDS = 120
ONE_BUCKET = {"INBOX": "s3://all/in box", "WORK": "s3://all/work", "RESULTS": "s3://all/results"}
SEPARATE = {"INBOX": "s3://inbox", "WORK": "s3://work", "RESULTS": "s3://results/of/ct"}


@contextmanager
def store(*, webhook=None):
    """A SeaweedFS of the test's own: every object in it is the test's or Voxelmill's."""
    server, facts = start(weed_program(), webhook=webhook)
    try:
        yield S3Server(**facts)
    finally:
        server.stop()


@contextmanager
def installation(server, broker_url, database_url, scratch, places, *, ports=None, **settings):
    """Ingest's process on a store, with its buckets made; give its port, and the variables that are not ours too."""
    client = server.client()
    for bucket in {place.split("/")[2] for place in places.values()}:
        client.create_bucket(Bucket=bucket)
    client.close()
    environment = {
        **os.environ,
        **server.environment(),
        "VOXELMILL_BROKER_URL": broker_url,
        "VOXELMILL_DATABASE_URL": database_url,
        **{f"VOXELMILL_{role}_URL": place for role, place in places.items()},
        "VOXELMILL_SCRATCH": str(scratch),
        "VOXELMILL_GEOMETRY_SECONDS": "2",
        "VOXELMILL_QUIET_SECONDS": "4",
        **{f"VOXELMILL_{name}": value for name, value in settings.items()},
    }
    with running(environment, ["ingest"], ports=ports) as taken:
        wait_until_ready(taken)
        yield taken["ingest"], {name: value for name, value in environment.items() if os.environ.get(name) != value}


def place(address):
    """Bucket and key prefix of an address."""
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    return bucket, f"{prefix}/" if prefix else ""


def put_series(client, address, series, tmp_path):
    """Put every instance, one of them in two parts; return the keys under the inbox."""
    bucket, prefix = place(address)
    paths = sorted(series.iterdir())
    for path in paths[1:]:
        client.upload_file(str(path), bucket, f"{prefix}chest/{path.name}")
    large = pydicom.dcmread(paths[0])
    large.private_block(0x0009, "VOXELMILL TEST", create=True).add_new(0x01, "OB", bytes(PART))
    large.save_as(tmp_path / "large.dcm")
    body = (tmp_path / "large.dcm").read_bytes()
    upload = {"Bucket": bucket, "Key": f"{prefix}chest/{paths[0].name}"}
    upload["UploadId"] = client.create_multipart_upload(**upload)["UploadId"]
    pieces = [body[:PART], body[PART:]]
    tags = [client.upload_part(**upload, PartNumber=n, Body=piece)["ETag"] for n, piece in enumerate(pieces, 1)]
    parts = [{"PartNumber": n, "ETag": tag} for n, tag in enumerate(tags, 1)]
    client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    return [f"chest/{path.name}" for path in paths]


def check_handed_on(broker_url, keys):
    """Wait until ingest has told of a series of all these objects; it may tell of each object and revision once."""
    heard = asyncio.run(_hear(broker_url, len(keys)))
    objects = [event.object.key for event in heard if isinstance(event, ObjectValidated)]
    assert sorted(objects) == sorted(keys)
    series = [event for event in heard if isinstance(event, SeriesValidated)]
    assert len({event.revision for event in series}) == len(series)
    assert len({event.series_instance_uid for event in series}) == 1
    assert len(heard) == len(objects) + len(series)


async def _hear(broker_url, instances):
    """Be index: take every event until the series is whole."""
    heard = []

    async def take(delivery):
        heard.append(open_envelope(Envelope.decode(delivery.message.body)))
        await delivery.ack()

    deadline = time.monotonic() + SECONDS
    transport = open_transport(broker_url)
    try:
        await transport.declare(TOPOLOGY)
        consumer = await transport.consume(INDEX, take, prefetch=100)
        while not any(isinstance(event, SeriesValidated) and event.instances == instances for event in heard):
            assert time.monotonic() < deadline, "no series was completed"
            await asyncio.sleep(0.05)
        await consumer.cancel()
    finally:
        await transport.close()
    return heard


def put_results(client, places):
    """Put something where results and work lie: nobody may take it for input."""
    for role in ("RESULTS", "WORK"):
        bucket, prefix = place(places[role])
        client.put_object(Bucket=bucket, Key=f"{prefix}1.2.3/r1/4f/receipt.json", Body=b"{}")


def found(port):
    """How ingest came to know of objects: the counters that are not zero."""
    counted = metrics(port)
    ways = {
        name.removeprefix("voxelmill_").removesuffix("{}"): value
        for name, value in counted.items()
        if value and name.startswith(("voxelmill_notifications_total", "voxelmill_objects_found_by_reconciler_total"))
    }
    taken = sum(
        value
        for name, value in counted.items()
        if name.startswith("voxelmill_messages_settled_total") and "type=object.uploaded.v1" in name
    )
    return ways, taken


@pytest.fixture
def client():
    """Give what opens a client that is closed at the end."""
    opened = []

    def open_client(server):
        opened.append(server.client())
        return opened[-1]

    yield open_client
    for one in opened:
        one.close()


def test_through_the_webhook_alone(small, tmp_path, rabbitmq_vhost_url, database, client):
    """SeaweedFS pushes every change; one bucket holds inbox, work and results, and results are never taken in."""
    port, token = free_port(), secrets.token_hex(16)
    with (
        store(webhook=(f"http://127.0.0.1:{port}/notifications", token)) as server,
        installation(
            server,
            rabbitmq_vhost_url,
            database,
            tmp_path / "scratch",
            ONE_BUCKET,
            ports={"ingest": port},
            NOTIFICATION_TOKEN=token,
            RECONCILE_SECONDS="0",
        ) as (ingest, _),
    ):
        put_results(client(server), ONE_BUCKET)
        keys = put_series(client(server), ONE_BUCKET["INBOX"], small[0], tmp_path)
        check_handed_on(rabbitmq_vhost_url, keys)
        ways, taken = found(ingest)
    assert ways.pop("notifications_total{outcome=outside,source=http}") >= 2  # results and work of the same bucket
    assert ways.pop("notifications_total{outcome=ignored,source=http}") >= 2  # parts and folders
    assert ways == {"notifications_total{outcome=announced,source=http}": len(keys)}
    assert taken == len(keys)


def test_through_the_filers_stream_alone(small, tmp_path, rabbitmq_vhost_url, database, client):
    """The bridge reads SeaweedFS's stream; inbox, work and results are buckets of their own."""
    with (
        store() as server,
        installation(
            server,
            rabbitmq_vhost_url,
            database,
            tmp_path / "scratch",
            SEPARATE,
            SEAWEEDFS_FILER=server.filer,
            RECONCILE_SECONDS="0",
        ) as (ingest, environment),
    ):
        put_results(client(server), SEPARATE)
        keys = put_series(client(server), SEPARATE["INBOX"], small[0], tmp_path)
        check_handed_on(rabbitmq_vhost_url, keys)
        ways, taken = found(ingest)
        listed = voxelmill("reconcile", "--json", **environment).document
    assert (listed["listed"], listed["known"], listed["announced"]) == (len(keys), len(keys), 0)
    assert ways.pop("notifications_total{outcome=ignored,source=seaweedfs}") >= 2
    assert ways == {"notifications_total{outcome=announced,source=seaweedfs}": len(keys)}
    assert taken == len(keys)


def test_through_the_reconciler_alone(small, tmp_path, rabbitmq_vhost_url, database, client):
    """No notification at all: the inbox is listed, and results under another prefix of the bucket are left alone."""
    with (
        store() as server,
        installation(
            server,
            rabbitmq_vhost_url,
            database,
            tmp_path / "scratch",
            ONE_BUCKET,
            RECONCILE_SECONDS="1",
            RECONCILE_GRACE_SECONDS="0",
        ) as (ingest, _),
    ):
        put_results(client(server), ONE_BUCKET)
        keys = put_series(client(server), ONE_BUCKET["INBOX"], small[0], tmp_path)
        check_handed_on(rabbitmq_vhost_url, keys)
        ways, taken = found(ingest)
    assert ways == {"objects_found_by_reconciler_total": len(keys)}
    assert taken == len(keys)
