"""Several series at once and two processes of every service, on real servers: each series is indexed, nothing twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import aio_pika
import pytest

from e2e.processes import SERVICES, metrics, running, wait_until_ready
from e2e.runs import SMALL
from voxelmill_cli.phantom import make_phantom
from voxelmill_cli.phantom_dicom import write_series
from voxelmill_shared import catalog
from voxelmill_shared.catalog import JobStatus
from voxelmill_shared.database import open_database, reading
from voxelmill_shared.results import Receipt
from voxelmill_shared.transport.topology import EVENTS_EXCHANGE

WORKERS = tuple(name for name in SERVICES if name != "gateway")
SERIES = 3
SECONDS = 150


@pytest.fixture
def environment(rabbitmq_vhost_url, bucket, s3_environment, database, tmp_path):
    """The settings of one installation that learns of objects from the store's stream alone."""
    return {
        **os.environ,
        "VOXELMILL_BROKER_URL": rabbitmq_vhost_url,
        "VOXELMILL_INBOX_URL": f"s3://{bucket}/inbox",
        "VOXELMILL_WORK_URL": f"s3://{bucket}/work",
        "VOXELMILL_RESULTS_URL": f"s3://{bucket}/results",
        "VOXELMILL_DATABASE_URL": database,
        "VOXELMILL_SCRATCH": str(tmp_path / "scratch"),
        "VOXELMILL_ORGAN": "bones",
        "VOXELMILL_FORMATS": '["stl"]',
        "VOXELMILL_SEAWEEDFS_FILER": s3_environment.filer,
        "VOXELMILL_RECONCILE_SECONDS": "0",
        "VOXELMILL_GEOMETRY_SECONDS": "6",
    }


def put(client, bucket, tmp_path):
    """Put small phantoms, all at once; return how many instances each series has."""
    paths = [
        write_series(tmp_path / f"series-{seed}", make_phantom(replace(SMALL, seed=seed))) for seed in range(SERIES)
    ]
    with ThreadPoolExecutor(SERIES) as threads:

        def put_series(written):
            for path in written:
                client.upload_file(str(path), bucket, f"inbox/{path.parent.name}/{path.name}")

        list(threads.map(put_series, paths))
    return [len(written) for written in paths]


def check_artefacts(client, bucket, key, instances):
    """Hold what a receipt names to its digests."""
    receipt = Receipt.model_validate_json(client.get_object(Bucket=bucket, Key=key)["Body"].read())
    assert len(receipt.inputs) == instances
    assert {artefact.name.partition("/")[0] for artefact in receipt.artefacts} == {
        "thumbnails",
        "segmentation",
        "meshes",
    }
    for artefact in receipt.artefacts:
        name = f"{key.rpartition('/')[0]}/{artefact.name}"
        body = client.get_object(Bucket=bucket, Key=name)["Body"].read()
        assert hashlib.sha256(body).hexdigest() == artefact.sha256


def done(ports, event):
    """How many messages of a kind these workers have finished."""
    return sum(
        value
        for port in ports
        for name, value in metrics(port).items()
        if name.startswith("voxelmill_messages_settled_total") and "outcome=done" in name and f"type={event}" in name
    )


@pytest.mark.rabbitmq
@pytest.mark.s3
@pytest.mark.postgresql
async def test_two_workers_of_each_service_index_every_series_once(environment, bucket, s3_environment, tmp_path):
    """In the catalog, in the bucket and in the events: as many jobs as series, whoever did what.

    Every artefact is in the bucket, with the digest that the receipt gives.
    """
    heard = []

    async def note(incoming):
        heard.append(json.loads(incoming.body)["subject"])

    client = s3_environment.client()
    engine = open_database(environment["VOXELMILL_DATABASE_URL"])
    broker = await aio_pika.connect(environment["VOXELMILL_BROKER_URL"])
    try:
        with running(environment, WORKERS) as some, running(environment, WORKERS) as others:
            for ports in (some, others):
                await asyncio.to_thread(wait_until_ready, ports)
            channel = await broker.channel()
            queue = await channel.declare_queue(exclusive=True)
            await queue.bind(EVENTS_EXCHANGE, "series.indexed.v1")
            await queue.consume(note, no_ack=True)
            instances = await asyncio.to_thread(put, client, bucket, tmp_path)
            deadline = time.monotonic() + SECONDS
            while len(set(heard)) < SERIES:
                assert time.monotonic() < deadline, f"indexed: {heard}"
                await asyncio.sleep(0.2)
            async with reading(engine) as connection:
                listed = await catalog.list_series(connection)
            segmented = done([some["segment"], others["segment"]], "series.validated.v1")
        assert [one.job.status for one in listed] == [JobStatus.COMPLETE] * SERIES
        assert sorted(one.job.instances for one in listed) == sorted(instances)
        assert segmented == SERIES
        assert Counter(heard) == {one.series_instance_uid: 1 for one in listed}
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="results/")
        keys = [found["Key"] for page in pages for found in page.get("Contents", ())]
        receipts = [key for key in keys if key.endswith("/receipt.json")]
        assert sorted(receipts) == sorted(f"results/{one.job.receipt_key}" for one in listed)
        for one in listed:
            check_artefacts(client, bucket, f"results/{one.job.receipt_key}", one.job.instances)
        assert {key.rpartition("/")[0] for key in receipts} == {"/".join(key.split("/")[:4]) for key in keys}
    finally:
        client.close()
        await broker.close()
        await engine.dispose()
