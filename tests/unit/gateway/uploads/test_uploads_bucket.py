"""What a bucket adds: clients write straight into it with nothing but HTTP, whole and in parts (a real SeaweedFS)."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

import httpx
import pytest

from unit.gateway.uploads.kit import DICOM, Client, stored, told
from voxelmill_gateway.server import serve
from voxelmill_gateway.uploads import model
from voxelmill_shared.storage.s3 import S3Store

pytestmark = pytest.mark.s3

PART = 5 << 20
BODY = os.urandom(1 << 20) * 12
"""Three parts."""


@pytest.fixture
def kind():
    """Only the bucket."""
    return "bucket"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Let files go in parts from 8 MiB on, in parts as small as S3 takes them."""
    monkeypatch.setattr(model, "IN_PARTS", 8 << 20)
    monkeypatch.setattr(model, "part_bytes", lambda _: PART)


async def put(url, body):
    """Write to an address, with nothing that knows of S3."""
    async with httpx.AsyncClient(timeout=60) as plain:
        return await plain.put(url, content=body)


def piece(part):
    """Cut a part out of the body."""
    return BODY[part["start"] : part["start"] + part["length"]]


async def key_of(gateway, begun, number=0):
    return f"uploads/{begun['upload_id']}/{number:06d}.dcm"


async def test_straight_into_the_bucket(client, gateway):
    """A small file and one in parts, parts in any order; the gateway sees none of their bytes."""
    begun = await client.begin(DICOM, BODY)
    small, large = begun["files"]
    assert small["parts"] is None
    assert (await put(small["put"]["url"], DICOM)).status_code == 200
    assert large["put"] is None
    assert [(part["number"], part["start"], part["length"]) for part in large["parts"]] == [
        (1, 0, PART),
        (2, PART, PART),
        (3, 2 * PART, len(BODY) - 2 * PART),
    ]
    answers = await asyncio.gather(*(put(part["url"], piece(part)) for part in reversed(large["parts"])))
    etags = [
        {"number": part["number"], "etag": answer.headers["etag"]}
        for part, answer in zip(reversed(large["parts"]), answers, strict=True)
    ]
    path = f"/uploads/{begun['upload_id']}/files/1/parts"
    for _ in range(2):
        assert (await client.ask("POST", path, 200, json={"parts": etags}))["done"]
    await client.complete(begun)
    objects, _ = await told(gateway)
    for announced, body in zip(objects, (DICOM, BODY), strict=True):
        stat = await gateway.stores.inbox.head(announced.object.key)
        assert (announced.object.etag, announced.object.size) == (stat.etag, len(body))
        assert await gateway.stores.inbox.read(announced.object.key) == body


async def test_completing_puts_parts_together_by_itself(client, gateway):
    """A client that forgets to, or dies in between, loses nothing; and nothing is left in the bucket beside the file."""
    begun = await client.begin(BODY)
    for part in begun["files"][0]["parts"]:
        await put(part["url"], piece(part))
    await client.complete(begun)
    assert await gateway.stores.inbox.read(await key_of(gateway, begun)) == BODY
    assert await gateway.stores.inbox.unfinished_uploads() == []


async def test_parts_that_are_missing_are_named(client, gateway):
    """By number; after they have come by fresh addresses all is well."""
    begun = await client.begin(BODY)
    first, second, third = begun["files"][0]["parts"]
    await put(first["url"], piece(first))
    await put(third["url"], piece(third))
    path = f"/uploads/{begun['upload_id']}/files/0/parts"
    assert (await client.ask("POST", path, 409, json={}))["parts"] == [2]
    wrong = [{"number": number, "etag": '"00"'} for number in (1, 2, 3)]
    assert (await client.ask("POST", path, 409, json={"parts": wrong}))["parts"] == [1, 2, 3]
    assert (await client.complete(begun, 409))["missing"] == [0]
    again = (await client.state(begun))["files"][0]
    assert again["received"] == PART
    assert (await put(again["parts"][1]["url"], piece(second))).status_code == 200
    await client.complete(begun)
    assert await gateway.stores.inbox.read(await key_of(gateway, begun)) == BODY


async def test_what_is_told_as_received_can_be_put_together(client):
    """Of a part that came twice in one moment, with other bytes, nobody knows which is meant: it counts as missing."""
    begun = await client.begin(BODY)
    first, _, third = begun["files"][0]["parts"]
    other = bytes(first["length"])
    await asyncio.gather(*(put(first["url"], body) for body in (piece(first), other)), put(third["url"], piece(third)))
    path = f"/uploads/{begun['upload_id']}/files/0/parts"
    missing = (await client.ask("POST", path, 409, json={}))["parts"]
    assert missing in ([1, 2], [2])
    assert (await client.state(begun))["files"][0]["received"] == (missing[0] - 1) * PART


async def test_what_is_gone_from_the_bucket_is_not_told_as_received(client, gateway):
    """A bucket that clears away unfinished uploads: the file begins anew."""
    begun = await client.begin(BODY, direct=False)
    half = PART + 1000
    await client.send(begun, 0, BODY[:half], **{"Content-Range": f"bytes 0-{half - 1}/{len(BODY)}"})
    assert (await client.state(begun))["files"][0]["received"] == PART
    await gateway.stores.inbox.parts.abort_all(f"uploads/{begun['upload_id']}")
    assert (await client.state(begun))["files"][0]["received"] == 0
    assert (await client.send(begun, 0, BODY)).status_code == 204
    await client.complete(begun)
    assert await gateway.stores.inbox.read(await key_of(gateway, begun)) == BODY


async def test_another_number_of_bytes_is_refused_by_the_bucket(client, gateway):
    """The address says how many there are."""
    begun = await client.begin(DICOM)
    assert (await put(begun["files"][0]["put"]["url"], DICOM + b"more")).status_code == 403
    assert await stored(gateway.stores.inbox) == {}


async def test_through_the_gateway_a_large_file_goes_on_at_a_part(client, gateway):
    """A client that does not reach the bucket: whole parts are kept, and HEAD says where to go on."""
    begun = await client.begin(BODY, direct=False)
    assert begun["files"][0]["parts"] is None
    total = len(BODY)
    cut = PART + 1000
    first = await client.send(begun, 0, BODY[:cut], **{"Content-Range": f"bytes 0-{cut - 1}/{total}"})
    assert (first.status_code, first.headers["upload-offset"], first.headers["upload-complete"]) == (
        204,
        str(PART),
        "?0",
    )
    assert await client.offset(begun, 0) == (PART, False)
    wrong = await client.send(begun, 0, BODY[cut:], **{"Content-Range": f"bytes {cut}-{total - 1}/{total}"})
    assert (wrong.status_code, wrong.headers["upload-offset"]) == (409, str(PART))
    rest = await client.send(begun, 0, BODY[PART:], **{"Content-Range": f"bytes {PART}-{total - 1}/{total}"})
    assert (rest.status_code, rest.headers["upload-complete"]) == (204, "?1")
    assert (await client.send(begun, 0, BODY)).status_code == 204
    assert (await client.send(begun, 0, BODY[:-1] + b"x")).status_code == 409
    await client.complete(begun)
    assert await gateway.stores.inbox.read(await key_of(gateway, begun)) == BODY
    assert await gateway.stores.inbox.unfinished_uploads() == []


async def test_from_the_beginning_all_is_new(client, gateway):
    """What an earlier attempt has left is thrown away, and not mixed with what comes now."""
    begun = await client.begin(BODY)
    part = begun["files"][0]["parts"][0]
    await put(part["url"], bytes(PART))
    assert (await client.send(begun, 0, BODY)).status_code == 204
    await client.complete(begun)
    assert await gateway.stores.inbox.read(await key_of(gateway, begun)) == BODY
    assert await gateway.stores.inbox.unfinished_uploads() == []


async def test_aborting_leaves_no_parts_that_cost_money(client, gateway):
    """No list shows them, and the bucket keeps them for ever."""
    begun = await client.begin(BODY, DICOM)
    part = begun["files"][0]["parts"][0]
    await put(part["url"], piece(part))
    await put(begun["files"][1]["put"]["url"], DICOM)
    assert len(await gateway.stores.inbox.unfinished_uploads()) == 1
    await client.ask("DELETE", f"/uploads/{begun['upload_id']}", 204)
    assert await gateway.stores.inbox.unfinished_uploads() == []
    assert await stored(gateway.stores.inbox) == {}


async def test_a_file_from_a_form(client, gateway, tmp_path):
    """The prototype's call puts its file into the bucket, by way of the local disk, where nothing is left of it."""
    uploaded = await client.ask("POST", "/upload", 200, files={"file": ("a.dcm", DICOM + BODY)})
    assert await gateway.stores.inbox.read(f"uploads/{uploaded['jobId']}/000000.dcm") == DICOM + BODY
    assert list((tmp_path / "scratch").glob("upload-*")) == []


async def test_bucket_out_of_reach(client, gateway):
    """503 with the next step, as long as it is away; nothing is lost."""
    begun = await client.begin(DICOM)
    away = S3Store("away", name="inbox", endpoint_url="http://127.0.0.1:9", tries=1)
    cut_off = replace(gateway, stores=replace(gateway.stores, inbox=away), stopping=asyncio.Event())
    async with serve(cut_off, "127.0.0.1", 0) as port, Client(f"http://127.0.0.1:{port}").http as http:
        for method, path in (("PUT", "/files/0"), ("POST", "/complete"), ("GET", "")):
            answer = await http.request(method, f"/uploads/{begun['upload_id']}{path}", content=DICOM)
            assert (answer.status_code, answer.json()["title"]) == (503, "Out of reach for now")
            assert answer.headers["retry-after"]
    await away.close()
    assert (await client.send(begun, 0, DICOM)).status_code == 204
    await client.complete(begun)
