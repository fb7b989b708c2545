"""Every service as a process of its own, on RabbitMQ, S3 and PostgreSQL: the same series, the same results."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import time

import pytest

from e2e.processes import SERVICES, free_port, running, wait_until_ready
from voxelmill_shared import catalog
from voxelmill_shared.catalog import JobStatus
from voxelmill_shared.database import open_database, reading
from voxelmill_shared.events import Envelope, ObjectRef, ObjectUploaded, UploadCompleted
from voxelmill_shared.results import Receipt
from voxelmill_shared.storage.connect import open_store
from voxelmill_shared.transport.base import Message
from voxelmill_shared.transport.connect import open_transport
from voxelmill_shared.transport.topology import TOPOLOGY


@pytest.fixture
def environment(rabbitmq_vhost_url, bucket, database, tmp_path):
    """The settings of one installation on real servers."""
    return {
        **os.environ,
        "VOXELMILL_BROKER_URL": rabbitmq_vhost_url,
        "VOXELMILL_INBOX_URL": f"s3://{bucket}/inbox",
        "VOXELMILL_WORK_URL": f"s3://{bucket}/work",
        "VOXELMILL_RESULTS_URL": f"s3://{bucket}/results",
        "VOXELMILL_DATABASE_URL": database,
        "VOXELMILL_SCRATCH": str(tmp_path / "scratch"),
        "VOXELMILL_ORGAN": "lungs",
    }


@pytest.fixture
def processes(environment):
    """Start all services."""
    with running(environment) as ports:
        yield ports


@pytest.mark.rabbitmq
@pytest.mark.s3
@pytest.mark.postgresql
async def test_a_series_goes_through_six_processes(processes, environment, series):
    """Objects in a bucket, events on RabbitMQ: complete in the catalog, every artefact in the bucket with its digest."""
    deadline = time.monotonic() + 120
    await asyncio.to_thread(wait_until_ready, processes)
    inbox = open_store(environment["VOXELMILL_INBOX_URL"], bucket="inbox")
    results = open_store(environment["VOXELMILL_RESULTS_URL"], bucket="results")
    transport = open_transport(environment["VOXELMILL_BROKER_URL"])
    engine = open_database(environment["VOXELMILL_DATABASE_URL"])
    try:
        references = []
        for path in sorted(series.iterdir()):
            stored = await inbox.write_file(f"chest/{path.name}", path)
            references.append(ObjectRef(bucket="inbox", key=stored.key, etag=stored.etag, size=stored.size))
        events = [ObjectUploaded(object=one, found_by="command", upload_id="u") for one in references]
        envelopes = [Envelope.wrap(e, "test") for e in (*events, UploadCompleted(upload_id="u", objects=len(events)))]
        await transport.declare(TOPOLOGY)
        await transport.publish([Message(e.encode(), e.routing_key, str(e.id)) for e in envelopes])

        job = None
        while job is None or job.status is JobStatus.PROCESSING:
            assert time.monotonic() < deadline, f"not complete: {job}"
            await asyncio.sleep(0.2)
            async with reading(engine) as connection:
                found = await catalog.list_series(connection)
                job = found[0].job if found else None
        assert job.status is JobStatus.COMPLETE
        assert job.evidence == "upload"
        receipt = Receipt.model_validate_json(await results.read(job.receipt_key))
        assert len(receipt.inputs) == len(references)
        for artefact in receipt.artefacts:
            body = await results.read(job.keys.artefact(artefact.name))
            assert hashlib.sha256(body).hexdigest() == artefact.sha256
    finally:
        await transport.close()
        await engine.dispose()
        await inbox.close()
        await results.close()


@pytest.mark.parametrize("name", SERVICES)
def test_a_wrong_setting_is_one_clear_line(name):
    """The variable, what is wrong with it, and exit code 2."""
    done = subprocess.run(
        [sys.executable, "-m", f"voxelmill_{name}"],
        env={**os.environ, "VOXELMILL_PORT": "70000"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"voxelmill-{name}: VOXELMILL_PORT: ")
    assert "Traceback" not in done.stderr


def test_a_broker_out_of_reach_is_exit_code_3(tmp_path):
    """A dependency out of reach: its own exit code, and what to do."""
    done = subprocess.run(
        [sys.executable, "-m", "voxelmill_mesh"],
        env={
            **os.environ,
            "VOXELMILL_BROKER_URL": f"amqp://guest:guest@127.0.0.1:{free_port()}/",
            "VOXELMILL_RESULTS_URL": str(tmp_path / "results"),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
