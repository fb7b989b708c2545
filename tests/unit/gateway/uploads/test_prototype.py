"""The calls of the first web prototype, in its shape."""

from __future__ import annotations

import gzip
import struct

import pytest

from unit.gateway.uploads.kit import DICOM, stored, told
from voxelmill_gateway.tables import OUTBOX
from voxelmill_shared.database import reading
from voxelmill_shared.events import Envelope, JobRequested, open_envelope


@pytest.fixture
def kind():
    """Only the folder; into a bucket goes one of them in test_uploads_bucket."""
    return "folder"


NIFTI = struct.pack("<i", 348) + bytes(400)


@pytest.mark.parametrize(
    ("name", "body", "suffix"),
    [
        ("../../../scan.zip", DICOM, ".dcm"),
        ("a.dcm", b"PK\x03\x04" + bytes(2000), ".zip"),
        ("x", NIFTI, ".nii"),
        ("x", gzip.compress(NIFTI, mtime=0), ".nii.gz"),
        ("slice.dcm", b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100" + bytes(50), ".dcm"),
        ("big.dcm", DICOM + bytes(5 << 20), ".dcm"),
    ],
    ids=["dicom", "zip", "nifti", "nifti-gzip", "dicom-without-preamble", "large"],
)
async def test_one_file_is_taken_in_and_handed_on(client, gateway, name, body, suffix):
    """The suffix is that of the content; the name leads nowhere; the answer has the two fields, and no more."""
    answer = await client.ask("POST", "/upload", 200, files={"file": (name, body)}, data={"filename": name})
    assert answer == {"ok": True, "jobId": answer["jobId"]}
    key = f"uploads/{answer['jobId']}/000000{suffix}"
    assert await stored(gateway.stores.inbox) == {key: len(body)}
    (announced,), (end,) = await told(gateway)
    assert (announced.object.key, announced.upload_id) == (key, answer["jobId"])
    assert (end.upload_id, end.objects) == (answer["jobId"], 1)
    assert (await client.ask("GET", f"/uploads/{answer['jobId']}", 200))["state"] == "complete"


@pytest.mark.parametrize(
    "body", [b"", b"%PDF-1.7", b"\x89PNG\r\n\x1a\n" + bytes(500), b"hello" * 100], ids=["empty", "pdf", "png", "text"]
)
async def test_what_is_no_image_is_refused(client, gateway, body):
    """415, whatever its name says, and nothing of it is kept."""
    await client.ask("POST", "/upload", 415, files={"file": ("a.dcm", body)})
    await gateway.stores.inbox.check()
    assert await stored(gateway.stores.inbox) == {}
    assert await told(gateway) == ([], [])


async def test_forms_that_are_none(client):
    """Another media type, no file, two of them, a form that breaks off."""
    await client.ask("POST", "/upload", 415, content=DICOM, headers={"Content-Type": "application/dicom"})
    await client.ask("POST", "/upload", 415)
    await client.ask("POST", "/upload", 400, files={"other": ("a.dcm", DICOM)})
    await client.ask("POST", "/upload", 400, files=[("file", ("a.dcm", DICOM)), ("file", ("b.dcm", DICOM))])
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.dcm"\r\n\r\n'
    multipart = {"Content-Type": "multipart/form-data; boundary=x"}
    await client.ask("POST", "/upload", 400, content=head + DICOM, headers=multipart)
    await client.ask("POST", "/upload", 400, content=head + DICOM, headers={"Content-Type": "multipart/form-data"})


async def test_a_form_that_breaks_off_leaves_nothing(client, gateway):
    """The upload is aborted and what had come is removed."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.dcm"\r\n\r\n'
    multipart = {"Content-Type": "multipart/form-data; boundary=x"}
    await client.ask("POST", "/upload", 400, content=head + DICOM + bytes(3 << 20), headers=multipart)
    await gateway.stores.inbox.check()
    assert await stored(gateway.stores.inbox) == {}


async def test_totalsegmentator_is_asked_for(client, gateway):
    """The plan says so; the job of the answer is the one of the question."""
    uploaded = await client.ask("POST", "/upload", 200, files={"file": ("a.dcm", DICOM)})
    asked = {"jobId": uploaded["jobId"], "device": "gpu", "fast": True, "reduction_percent": 75}
    answer = await client.ask("POST", "/process/totalseg", 200, json=asked)
    assert answer == {"ok": True, "jobId": uploaded["jobId"], "status": "requested"}
    request = (await requests(gateway))[-1]
    assert (request.upload_id, request.project, request.who) == (uploaded["jobId"], "default", "local@loopback")
    plan = request.plan
    assert (plan.model, plan.resolution, plan.reduction_percent) == ("totalsegmentator", "fast", 75)
    await client.ask("POST", "/process/totalseg", 404, json={**asked, "jobId": "0" * 32})
    await client.ask("POST", "/process/totalseg", 422, json={**asked, "reduction_percent": 100})


async def requests(gateway):
    """Return the requests for jobs that nobody has taken yet."""
    async with reading(gateway.engine) as connection:
        bodies = (await connection.execute(OUTBOX.select().order_by(OUTBOX.c.id))).all()
    events = [open_envelope(Envelope.decode(row.body)) for row in bodies]
    return [event for event in events if isinstance(event, JobRequested)]
