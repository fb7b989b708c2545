"""Uploads over HTTP, into a folder and into a bucket (a real SeaweedFS)."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from sqlalchemy import select

from unit.gateway.uploads.kit import DICOM, recorded, stored, told, until
from voxelmill_gateway.tables import OUTBOX
from voxelmill_gateway.uploads import bucket_inbox
from voxelmill_shared.database import reading
from voxelmill_shared.events import AccessRecorded, Envelope, open_envelope


async def test_what_was_sent_is_handed_to_ingest_with_the_evidence_that_it_is_all(client, gateway):
    """Three files: each announced with its content under the upload's id, then the end with their number."""
    bodies = [DICOM, b"PK\x03\x04" + bytes(10), bytes(5)]
    names = ["../../etc/IM 1.DCM", "scan.zip", "no suffix"]
    begun = await client.ask(
        "POST",
        "/uploads",
        201,
        json={"files": [{"name": name, "size": len(body)} for name, body in zip(names, bodies, strict=True)]},
    )
    upload_id = begun["upload_id"]
    assert [(file["number"], file["size"], file["done"], file["received"]) for file in begun["files"]] == [
        (number, len(body), False, 0) for number, body in enumerate(bodies)
    ]
    for number, body in enumerate(bodies):
        answer = await client.send(begun, number, body)
        assert answer.status_code == 204
        assert answer.headers["upload-complete"] == "?1"
    assert await told(gateway) == ([], [])
    ended = await client.complete(begun)
    assert (ended["state"], ended["objects"]) == ("complete", 3)
    keys = [f"uploads/{upload_id}/{number:06d}{suffix}" for number, suffix in enumerate((".dcm", ".zip", ""))]
    objects, ends = await told(gateway)
    assert [(one.object.bucket, one.object.key, one.object.etag, one.object.size) for one in objects] == [
        ("inbox", key, hashlib.md5(body, usedforsecurity=False).hexdigest(), len(body))
        for key, body in zip(keys, bodies, strict=True)
    ]
    assert {(one.upload_id, one.found_by) for one in objects} == {(upload_id, "gateway")}
    assert [(end.upload_id, end.objects) for end in ends] == [(upload_id, 3)]
    for key, body in zip(keys, bodies, strict=True):
        assert await gateway.stores.inbox.read(key) == body
    assert set(await stored(gateway.stores.inbox)) == set(keys)


async def test_completing_again_says_the_same_and_announces_nothing_anew(client, gateway):
    """A client that lost the answer asks again, and two at once are as good as one."""
    begun = await client.begin(DICOM)
    await client.send(begun, 0, DICOM)
    answers = await asyncio.gather(*(client.complete(begun) for _ in range(4)))
    assert all(answer == answers[0] for answer in answers)
    assert await client.complete(begun) == answers[0]
    objects, ends = await told(gateway)
    assert (len(objects), len(ends)) == (1, 1)


async def test_what_is_missing_is_named(client, gateway):
    """409 with the numbers; nothing is announced, and what was missing can still be sent."""
    begun = await client.begin(DICOM, DICOM, DICOM)
    await client.send(begun, 1, DICOM)
    problem = await client.complete(begun, 409)
    assert (problem["missing"], problem["missing_total"], problem["wrong_size"]) == ([0, 2], 2, [])
    assert await told(gateway) == ([], [])
    for number in (0, 2):
        await client.send(begun, number, DICOM)
    await client.complete(begun)
    assert len((await told(gateway))[0]) == 3


async def test_another_size_than_was_declared(client, gateway):
    """Longer or shorter: refused before or while it comes, said so, and nothing of it stands."""
    begun = await client.begin(bytes(10))
    for body in (bytes(9), bytes(11)):
        assert (await client.send(begun, 0, body)).status_code == 400

        async def chunked(body=body):
            yield body

        assert (await client.send(begun, 0, chunked())).status_code == 400
    assert (await client.complete(begun, 409))["missing"] == [0]
    assert await stored(gateway.stores.inbox) == {}
    assert (await client.send(begun, 0, bytes(10))).status_code == 204
    await client.complete(begun)


async def test_an_object_of_another_size_behind_our_back(client, gateway):
    """Somebody has put something else under the key: the sizes are told, and nothing is announced."""
    begun = await client.begin(bytes(10))
    await gateway.stores.inbox.write(f"uploads/{begun['upload_id']}/000000.dcm", bytes(12))
    problem = await client.complete(begun, 409)
    assert problem["wrong_size"] == [{"number": 0, "declared": 10, "received": 12}]
    assert problem["missing"] == []


async def test_a_done_file_is_not_overwritten(client):
    """The same bytes once more are fine, whoever lost an answer; others are refused."""
    body = b"a" * 3000
    begun = await client.begin(body)
    for _ in range(2):
        assert (await client.send(begun, 0, body)).status_code == 204
    refused = await client.send(begun, 0, b"b" * 3000)
    assert refused.status_code == 409
    assert refused.headers["upload-offset"] == "3000"
    await client.complete(begun)
    assert (await client.send(begun, 0, b"b" * 3000)).status_code == 409
    assert (await client.send(begun, 0, body)).status_code == 204


async def test_empty_files_are_files(client, gateway):
    """No byte is also a content; ingest says what is wrong with it."""
    begun = await client.begin(b"")
    assert (await client.send(begun, 0, b"")).status_code == 204
    await client.complete(begun)
    assert (await told(gateway))[0][0].object.size == 0


async def test_aborting_removes_what_has_come(client, gateway):
    """Nothing stays, nothing more is taken, and once more is no error; what is complete cannot be aborted."""
    begun = await client.begin(DICOM, DICOM)
    await client.send(begun, 0, DICOM)
    for _ in range(2):
        await client.ask("DELETE", f"/uploads/{begun['upload_id']}", 204)
    assert await stored(gateway.stores.inbox) == {}
    assert "aborted" in await recorded(gateway)
    assert (await client.send(begun, 1, DICOM)).status_code == 409
    await client.complete(begun, 409)
    assert (await client.state(begun))["state"] == "aborted"
    whole = await client.begin(DICOM)
    await client.send(whole, 0, DICOM)
    await client.complete(whole)
    await client.ask("DELETE", f"/uploads/{whole['upload_id']}", 409)
    assert len(await stored(gateway.stores.inbox)) == 1


async def test_the_state_says_what_has_come_and_where_the_rest_goes(client):
    """Asking again gives addresses for what is not done, so that whoever starts anew goes on; pages of files."""
    begun = await client.begin(DICOM, DICOM, DICOM)
    await client.send(begun, 1, DICOM)
    state = await client.state(begun)
    assert (state["state"], state["files_total"], state["files_done"]) == ("open", 3, 1)
    assert state["received"] == len(DICOM)
    assert [(file["done"], file["put"] is not None) for file in state["files"]] == [
        (False, True),
        (True, False),
        (False, True),
    ]
    page = await client.state(begun, limit=2)
    assert [file["number"] for file in page["files"]] == [0, 1]
    rest = await client.ask("GET", page["next"], 200)
    assert ([file["number"] for file in rest["files"]], rest["next"]) == ([2], None)
    through = await client.state(begun, direct=False)
    assert through["files"][0]["put"]["url"] == f"/uploads/{begun['upload_id']}/files/0"


async def test_bounds(client, gateway, settings):
    """Too many files, one that is too large, and what is not as the interface says."""
    most = settings.gateway_upload_files
    files = [{"name": "", "size": 1}] * (most + 1)
    assert (await client.http.post("/uploads", json={"files": files})).status_code in {413, 422}
    too_large = {"files": [{"name": "x", "size": settings.gateway_upload_bytes + 1}]}
    await client.ask("POST", "/uploads", 413, json=too_large)
    for wrong in (
        {},
        {"files": []},
        {"files": [{"size": -1}]},
        {"files": [{"size": 1}], "more": 1},
        {"files": [{"size": 1}], "project": "../x"},
    ):
        await client.ask("POST", "/uploads", 422, json=wrong)
    assert await stored_or_none(gateway) == {}


async def stored_or_none(gateway):
    """Return what is in the inbox; nothing if nobody has made it."""
    await gateway.stores.inbox.check()
    return await stored(gateway.stores.inbox)


@pytest.mark.parametrize("upload_id", ["0" * 32, "x", "%2e%2e%2fetc"])
async def test_what_is_not_there_is_not_found(client, upload_id):
    """No such upload, and no such file of one."""
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/complete"), ("PUT", "/files/0")):
        answer = await client.http.request(method, f"/uploads/{upload_id}{path}")
        assert answer.status_code in {404, 405, 422}
    begun = await client.begin(DICOM)
    assert (await client.send(begun, 1, DICOM)).status_code == 404


async def test_a_project_has_its_own_prefix(client, gateway):
    """Keys say whose the objects are."""
    begun = await client.begin(DICOM, project="trial-7")
    await client.send(begun, 0, DICOM)
    await client.complete(begun)
    (announced,), _ = await told(gateway)
    assert announced.object.key == f"projects/trial-7/uploads/{begun['upload_id']}/000000.dcm"


async def test_two_clients_write_one_file_at_once(client, gateway, tmp_path):
    """The second one is told to wait; what stands is what the first one sent, and no mixture."""
    bodies = [b"a" * 200_000, b"b" * 200_000]
    begun = await client.begin(bodies[0])
    gate = asyncio.Event()

    async def slowly(body):
        yield body[:100_000]
        await gate.wait()
        yield body[100_000:]

    async def is_writing():
        return bucket_inbox._WRITTEN or list((tmp_path / "inbox").glob("*/*.partial"))

    first = asyncio.create_task(client.send(begun, 0, slowly(bodies[0]), **{"Content-Length": "200000"}))
    await until(is_writing)
    refused = await client.send(begun, 0, bodies[1])
    assert (refused.status_code, refused.json()["title"]) == (409, "Somebody else is writing this file")
    gate.set()
    assert (await first).status_code == 204
    assert (await client.send(begun, 0, bodies[1])).status_code == 409
    await client.complete(begun)
    assert await gateway.stores.inbox.read(f"uploads/{begun['upload_id']}/000000.dcm") == bodies[0]


async def test_who_brought_it_is_recorded_once(client, gateway):
    """With the end of the upload, however often it is asked for, and not for an upload that does not end."""
    begun = await client.begin(DICOM)
    await client.complete(begun, 409)
    await client.send(begun, 0, DICOM)
    await asyncio.gather(*(client.complete(begun) for _ in range(4)))
    async with reading(gateway.engine) as connection:
        bodies = (await connection.execute(select(OUTBOX.c.body))).scalars().all()
    events = [open_envelope(Envelope.decode(body)) for body in bodies]
    brought = [event for event in events if isinstance(event, AccessRecorded) and event.action == "uploaded"]
    assert [event.detail for event in brought] == [f"upload {begun['upload_id']}, 1 files"]


async def test_an_upload_that_is_aborted_while_a_file_comes(client, gateway, kind):
    """Who still sends is told that it is aborted, not to try again; nothing of the file stands."""
    begun = await client.begin(DICOM)
    may_end = asyncio.Event()

    async def body():
        yield DICOM[:200]
        await may_end.wait()
        yield DICOM[200:]

    sending = asyncio.create_task(client.send(begun, 0, body()))
    key = f"uploads/{begun['upload_id']}/000000.dcm"

    async def is_coming():
        if kind == "folder":
            return gateway.stores.inbox.partial(key).path.exists()
        return (begun["upload_id"], 0) in bucket_inbox._WRITTEN

    await until(is_coming)
    await client.ask("DELETE", f"/uploads/{begun['upload_id']}", 204)
    may_end.set()
    refused = await sending
    assert (refused.status_code, refused.json()["title"]) == (409, "The upload is aborted")
    assert await stored(gateway.stores.inbox) == {}
