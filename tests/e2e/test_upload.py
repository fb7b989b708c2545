"""A folder of a real series, uploaded over HTTP to `voxelmill up`: it is worked on when the upload is complete."""

from __future__ import annotations

import json
import signal
import time
from contextlib import contextmanager

import httpx
import pytest

from e2e.background import background

SLICES = 20
NEVER = {"VOXELMILL_GEOMETRY_SECONDS": "100000", "VOXELMILL_QUIET_SECONDS": "100000"}
"""A series is not complete because nothing more comes: only its upload says that it is."""


@pytest.fixture
def bodies(data):
    """The files of an abdomen CT."""
    found = [path.read_bytes() for path in sorted((data / "totalseg_ct_dicom_20").iterdir())]
    assert len(found) == SLICES
    return found


@contextmanager
def up(data, **environment):
    """Run it until SIGTERM, and give its address."""
    arguments = ("up", "--data", data, "--organ", "lungs", "--port", "0")
    with background(*arguments, **NEVER, **environment) as process:
        yield process.line_with("look at them on").split(" on ")[1].split(";")[0]
        assert process.end(signal.SIGTERM) == 0, process.errors


def begin(client, bodies):
    files = [{"name": f"IM{number}", "size": len(body)} for number, body in enumerate(bodies)]
    answer = client.post("/uploads", json={"files": files})
    assert answer.status_code == 201, answer.text
    return answer.json()


def wait_for(client, upload_id, condition, seconds=120):
    """Ask for the upload until a condition holds; return what was answered then."""
    deadline = time.monotonic() + seconds
    while True:
        answer = client.get(f"/uploads/{upload_id}")
        assert answer.status_code == 200, answer.text
        state = answer.json()
        if condition(state):
            return state
        assert time.monotonic() < deadline, json.dumps(state["series"]) + json.dumps(state["objects"])
        time.sleep(0.1)


def has_ended(state):
    return state["series"] and state["series"][0]["job"] and state["series"][0]["job"]["status"] != "processing"


def test_a_folder_through_the_gateway_becomes_an_indexed_series(bodies, tmp_path):
    """Files one by one, the end, and all stages; then another job for the same series, asked for twice."""
    with (
        up(tmp_path / "data") as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        upload = begin(client, bodies)
        for file, body in zip(upload["files"], bodies, strict=True):
            assert client.put(file["put"]["url"], content=body).status_code == 204
        assert client.post(f"/uploads/{upload['upload_id']}/complete").status_code == 202
        state = wait_for(client, upload["upload_id"], has_ended)
        (series,) = state["series"]
        job = series["job"]
        assert (job["status"], job["revision"], series["instances"]) == ("complete", 1, SLICES)
        assert (state["objects"]["settled"], state["objects"]["refused"]) == (SLICES, [])
        assert client.get(f"/jobs/{job['job_id']}").json()["evidence"] == "upload"
        wanted = {"series_instance_uid": series["series_instance_uid"], "organ": "body", "formats": ["stl"]}
        asked = [client.post("/process", json=wanted).json() for _ in range(2)]
        assert asked[0]["job_id"] == asked[1]["job_id"] != job["job_id"]

        def is_the_new_one(state):
            return has_ended(state) and state["series"][0]["job"]["job_id"] == asked[0]["job_id"]

        now = wait_for(client, upload["upload_id"], is_the_new_one)["series"][0]["job"]
        assert (now["status"], now["revision"]) == ("complete", 1)
        assert client.get(f"/jobs/{job['job_id']}").json()["superseded"] is True
        again = client.post("/process", json=wanted).json()
        assert (again["job_id"], again["status"]) == (asked[0]["job_id"], "complete")


@pytest.mark.s3
def test_straight_into_a_bucket_with_nothing_but_http(small, bucket, tmp_path):
    """Presigned addresses and a client that knows nothing of S3: ingest hands the series on when all has come."""
    # What comes after ingest is the other test's: work in hand is not waited for at the end.
    bodies = [path.read_bytes() for path in sorted(small[0].iterdir())]
    environment = {"VOXELMILL_INBOX_URL": f"s3://{bucket}/in box", "VOXELMILL_GRACE_SECONDS": "0.1"}
    with (
        up(tmp_path / "data", **environment) as address,
        httpx.Client(base_url=address, timeout=60) as client,
        httpx.Client(timeout=60) as plain,
    ):
        upload = begin(client, bodies)
        for file, body in zip(upload["files"], bodies, strict=True):
            assert file["put"]["url"].startswith("http://127.0.0.1:")
            assert plain.put(file["put"]["url"], content=body).status_code == 200
        assert client.post(f"/uploads/{upload['upload_id']}/complete").status_code == 202
        state = wait_for(client, upload["upload_id"], lambda state: state["series"] and state["series"][0]["job"])
        (series,) = state["series"]
        assert (series["job"]["revision"], series["instances"]) == (1, len(bodies))
        assert client.get(f"/jobs/{series['job']['job_id']}").json()["evidence"] == "upload"
