"""The interface is what its OpenAPI document says: every operation, with what it takes and what it does not."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import contextmanager

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi import checks

from integration.gateway_kit import Job, add_record, opened, settings_for
from voxelmill_gateway.server import serve
from voxelmill_shared.database import transaction
from voxelmill_shared.transport.topology import TOPOLOGY

JOBS = [Job(1), Job(2, project="trial"), Job(3, stages=("ingest", "thumbnail"))]
EXAMPLES = int(os.environ.get("VOXELMILL_TEST_SCHEMA_EXAMPLES", "3"))
"""For each operation and each way of making requests."""
KNOWN = {
    "job_id": JOBS[0].job_id, "uid": JOBS[0].uid, "study": JOBS[0].study, "series": JOBS[0].uid,
    "name": "meshes/lung_left.obj",
}  # fmt: skip
"""What is there to be asked for, by the name of the part of the path."""
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


schemathesis.serializer.alias(["application/dicom", "multipart/related"], "application/octet-stream")


@contextmanager
def running(folder):
    """Serve a gateway in a thread: what asks it has no event loop."""
    ready, found = threading.Event(), {}

    async def run():
        stop = asyncio.Event()
        found.update(loop=asyncio.get_running_loop(), stop=stop)
        async with opened(settings_for(folder, gateway_rate_per_minute=0), JOBS) as gateway:
            await gateway.transport.declare(TOPOLOGY)
            async with transaction(gateway.engine) as connection:
                for number in range(1, 4):
                    await add_record(connection, number, "series.validated.v1", JOBS[0])
            async with serve(gateway, "127.0.0.1", 0) as port:
                found["address"] = f"http://127.0.0.1:{port}"
                ready.set()
                await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert ready.wait(30)
        yield found["address"]
    finally:
        found["loop"].call_soon_threadsafe(found["stop"].set)
        thread.join(30)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with running(tmp_path_factory.mktemp("schema")) as served:
        yield served


def operations(address):
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    return [result.ok() for result in schema.get_all_operations()]


def asked(operation, address, **case):
    """Ask, and hold the answer to the document."""
    made = operation.Case(**case)
    answer = made.call(base_url=address, timeout=10)
    made.validate_response(answer, checks=CHECKS)
    return answer


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_operation_answers_as_the_document_says(address, mode):
    """No 5xx, whatever is asked; status, media type, headers and body as they are described."""
    found = operations(address)
    failures = []
    for operation in found:

        @settings(
            max_examples=EXAMPLES, deadline=None, database=None, derandomize=True,
            suppress_health_check=list(HealthCheck), phases=[Phase.generate],
        )  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case):
            if case.path == "/events":
                case.query = {**(case.query or {}), "wait": 0}  # else it goes on
            answer = case.call(base_url=address, timeout=10)
            case.validate_response(answer, checks=CHECKS)

        try:
            ask()
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE  # an operation without parameters takes anything
        except FailureGroup as failed:
            failures.append(f"{operation.label}: {failed.exceptions}")
    assert not failures, "\n\n".join(failures)
    assert len(found) > 40


def test_what_is_there_is_answered_as_the_document_says(address):
    """Random ids lead nowhere: the same with those that lead somewhere, and their answers have bodies."""
    statuses = {}
    for operation in operations(address):
        names = {parameter.name for parameter in operation.path_parameters}
        if operation.method.upper() not in {"GET", "HEAD"} or not names <= KNOWN.keys():
            continue
        query = {"after": 0, "wait": 0} if operation.path == "/events" else {}
        parts = {name: KNOWN[name] for name in names}
        statuses[operation.label] = asked(operation, address, path_parameters=parts, query=query).status_code
    ours = ("/series", "/jobs/{job_id}", "/jobs/{job_id}/archive.zip", "/files", "/events", "/dead-letters", "/audit")
    reading = {label: status for label, status in statuses.items() if label.split(" ")[1].startswith(ours)}
    reading.pop("GET /jobs/{job_id}/volume.nii.gz")  # there are no instances here to make one of
    assert reading == dict.fromkeys(reading, 200)
    assert len(reading) == 9
