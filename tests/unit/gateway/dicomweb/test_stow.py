"""STOW-RS: every instance is stored before its answer, each by itself; the end of a request is the end of an upload."""

from __future__ import annotations

import asyncio
import io
from contextlib import closing
from dataclasses import replace
from http.client import HTTPConnection
from xml.etree import ElementTree as ET

import httpx
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom.uid import DeflatedExplicitVRLittleEndian

from unit.gateway.dicomweb.stow_kit import SERIES, STUDY, TYPE, announced, instance, multipart, until, uploads
from unit.ingest.dicom_objects import dataset, encoded
from voxelmill_gateway.dicomweb import storing
from voxelmill_gateway.server import serve
from voxelmill_shared.errors import StoreUnavailableError
from voxelmill_shared.events import AccessRecorded, ObjectUploaded, UploadCompleted
from voxelmill_shared.storage.local import LocalStore

REFERENCED, FAILED, OTHERS = "00081199", "00081198", "0008119A"


async def post(address, body, path="/studies", **headers):
    headers = {"Content-Type": TYPE} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(base_url=f"{address}/dicomweb", timeout=30) as client:
        return await client.post(path, content=body, headers=headers)


def reasons(answer, sequence=FAILED):
    """Return the failure reasons of an answer."""
    return [item["00081197"]["Value"][0] for item in answer.json().get(sequence, {}).get("Value", ())]


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


async def stored(gateway):
    """Return the objects of the inbox by key."""
    inbox = gateway.stores.inbox
    if not inbox.root.is_dir():
        return {}
    return {found.key: await inbox.read(found.key) async for found in inbox.list()}


async def test_a_client_that_we_did_not_write_stores_a_study(address, gateway):
    """dicomweb-client's `store_instances`: the answer names each instance, and its bytes are in the inbox."""
    sent = [pydicom.dcmread(io.BytesIO(instance(number))) for number in range(3)]
    client = DICOMwebClient(f"{address}/dicomweb")
    answer = await asyncio.to_thread(client.store_instances, sent, study_instance_uid=STUDY)

    root = f"{address}/dicomweb/studies/{STUDY}"
    assert answer.RetrieveURL == root
    assert [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence] == ["1.2.3.0", "1.2.3.1", "1.2.3.2"]
    assert answer.ReferencedSOPSequence[2].RetrieveURL == f"{root}/series/{SERIES}/instances/1.2.3.2"
    assert "FailedSOPSequence" not in answer

    objects = await stored(gateway)
    assert {pydicom.dcmread(io.BytesIO(body)).SOPInstanceUID for body in objects.values()} == {
        "1.2.3.0", "1.2.3.1", "1.2.3.2",
    }  # fmt: skip


async def test_the_end_of_a_request_is_the_end_of_an_upload(address, gateway):
    """One event for each object, with its true size and ETag, and one that says how many they are; and who it was."""
    assert (await post(address, multipart(*map(instance, range(5))))).status_code == 200
    events = await announced(gateway)
    objects, (complete,), (access,) = (of(kind, events) for kind in (ObjectUploaded, UploadCompleted, AccessRecorded))
    assert {one.upload_id for one in objects} == {complete.upload_id}
    assert (complete.objects, {one.found_by for one in objects}) == (5, {"gateway"})
    for one in objects:
        assert one.object.key.startswith(f"uploads/{complete.upload_id}/")
        stat = await gateway.stores.inbox.head(one.object.key)
        assert (one.object.size, one.object.etag, one.object.bucket) == (stat.size, stat.etag, "inbox")
    assert await uploads(gateway) == [("stow", "complete", 5)]
    assert (access.action, access.study_instance_uid, access.outcome) == ("uploaded", STUDY, "done")


async def test_an_instance_of_another_study_fails_by_itself(address, gateway):
    """202, its reason in the answer, and the others are stored; 409 where there are no others."""
    other = instance(2, StudyInstanceUID="1.2.9")
    answer = await post(address, multipart(instance(1), other, instance(3)), f"/studies/{STUDY}")
    assert (answer.status_code, reasons(answer)) == (202, [0xC409])
    assert len(answer.json()[REFERENCED]["Value"]) == 2
    assert len(await stored(gateway)) == 2
    assert [one.objects for one in of(UploadCompleted, await announced(gateway))] == [2]

    answer = await post(address, multipart(other), f"/studies/{STUDY}")
    assert (answer.status_code, reasons(answer)) == (409, [0xC409])
    assert len(await stored(gateway)) == 2


async def test_instances_of_several_studies_have_no_address_in_common(address):
    """PS3.18 Annex I: the study's address is left empty."""
    answer = await post(address, multipart(instance(1), instance(2, StudyInstanceUID="1.2.9", SeriesInstanceUID="1.9")))
    assert (answer.status_code, answer.json()["00081190"]) == (200, {"vr": "UR"})


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"hello",
        bytes(200),
        b"\0" * 128 + b"DICM",
        instance(1)[:300],
        encoded(dataset(StudyInstanceUID=None)),
        encoded(dataset(SeriesInstanceUID="1.2.patient")),
        encoded(dataset(SOPInstanceUID="1." + "2" * 64)),
    ],
    ids=["empty", "text", "zeros", "head alone", "cut", "no study", "no UID", "long UID"],
)
async def test_what_cannot_be_understood_fails_by_itself(address, gateway, part):
    """The instance beside it is stored, and nothing of the part is in the answer but a number."""
    answer = await post(address, multipart(part, instance(7)))
    assert answer.status_code == 202
    assert reasons(answer) + reasons(answer, OTHERS) == [0xC000]
    assert len(await stored(gateway)) == 1


@pytest.mark.parametrize(
    "part",
    [
        instance(1)[132:],
        encoded(dataset(), DeflatedExplicitVRLittleEndian),
        encoded(dataset(), "1.2.840.10008.1.2"),
        encoded(dataset(PixelData=None)),
        encoded(dataset(OtherPatientIDsSequence=[pydicom.Dataset()] * 20)),
    ],
    ids=["no preamble", "deflated", "implicit", "no pixels", "sequence"],
)
async def test_unusual_instances_are_stored_as_they_are(address, gateway, part):
    """What ingest may take is not refused at the door, and no byte of it is changed."""
    assert (await post(address, multipart(part))).status_code == 200
    assert list((await stored(gateway)).values()) == [part]


async def test_a_part_of_another_type_fails_by_itself(address):
    """A JPEG beside an instance; alone it is 415."""
    body = multipart(instance(1), close=False) + multipart(b"\xff\xd8", head=b"Content-Type: image/jpeg\r\n")
    answer = await post(address, body)
    assert (answer.status_code, reasons(answer, OTHERS)) == (202, [0xC415])
    answer = await post(address, multipart(b"\xff\xd8", head=b"Content-Type: image/jpeg\r\n"))
    assert (answer.status_code, reasons(answer, OTHERS)) == (415, [0xC415])


@pytest.mark.parametrize(
    "content_type", ["application/dicom", "application/dicom; transfer-syntax=1.2.840.10008.1.2.1"]
)
async def test_one_instance_may_come_alone(address, gateway, content_type):
    """A body of a single part (PS3.18 8.6.1.1)."""
    assert (await post(address, instance(1), Content_Type=content_type)).status_code == 200
    assert list((await stored(gateway)).values()) == [instance(1)]


async def test_parts_without_headers_are_instances(address):
    """As careless clients write them: no Content-Type of the part, no type in that of the request."""
    answer = await post(
        address, multipart(instance(1), head=b""), Content_Type="multipart/related; boundary=a-boundary"
    )
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content_Type": "text/plain"}, b"hello", 415),
        ({"Content_Type": 'multipart/related; type="application/dicom+json"; boundary=x'}, b"", 415),
        ({"Content_Type": "multipart/form-data; boundary=x"}, b"", 415),
        ({"Content_Encoding": "gzip"}, b"\x1f\x8b", 415),
        ({"Content_Type": "multipart/related; type=application/dicom"}, b"", 400),
        ({"Accept": "text/html"}, multipart(instance(1)), 406),
        ({}, b"", 400),
        ({}, b"--a-boundary--", 400),
        ({}, multipart(instance(1), head=b"no colon\r\n"), 400),
    ],
    ids=["text", "json", "form", "gzip", "no boundary", "accept", "empty", "no part", "bad head"],
)
async def test_a_wrong_request_is_one_clear_problem(address, gateway, headers, body, status):
    """A problem document that says what to do; nothing is stored."""
    answer = await post(address, body, **headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["detail"]
    assert await stored(gateway) == {}
    assert await announced(gateway) == []


async def test_a_study_that_is_no_uid_is_one_clear_problem(address):
    """The address is wrong, whatever the body."""
    answer = await post(address, multipart(instance(1)), "/studies/1.2.x")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


async def test_the_answer_is_read_by_a_client_that_is_still_sending(address):
    """Refused at its first bytes, the client can send the rest and then reads why."""
    body = b"x" * (24 << 20)
    answer = await post(address, body, Content_Type="text/plain")
    assert answer.status_code == 415


async def test_a_missing_end_keeps_what_was_whole(address, gateway):
    """400; what was whole is announced, and nothing says that it is all."""
    answer = await post(address, multipart(instance(1), instance(2), close=False)[:-100])
    assert (answer.status_code, answer.json()["title"]) == (400, "Not a multipart body")
    events = await announced(gateway)
    assert (len(of(ObjectUploaded, events)), of(UploadCompleted, events)) == (1, [])
    assert await uploads(gateway) == [("stow", "complete", 1)]
    assert [one.outcome for one in of(AccessRecorded, events)] == ["failed"]


@pytest.mark.parametrize("declared", ["length", "chunked"])
async def test_a_client_that_breaks_off_loses_nothing(address, gateway, declared):
    """The connection is cut in the middle of the third instance: two are announced, and nothing says that they are all."""
    host, port = address.removeprefix("http://").split(":")
    body = multipart(instance(1), instance(2), instance(3))
    cut = body.rindex(b"DICM") + 50
    reader, writer = await asyncio.open_connection(host, int(port))
    length = f"Content-Length: {len(body)}" if declared == "length" else "Transfer-Encoding: chunked"
    writer.write(
        f"POST /dicomweb/studies HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: {TYPE}\r\n{length}\r\n\r\n".encode()
    )
    writer.write(body[:cut] if declared == "length" else f"{len(body):x}\r\n".encode() + body[:cut])
    await writer.drain()

    async def first_is_announced():
        return of(ObjectUploaded, await announced(gateway))

    assert len(await until(first_is_announced)) >= 1  # while the request goes on
    writer.transport.abort()

    async def is_over():
        return await uploads(gateway) == [("stow", "complete", 2)]

    await until(is_over)
    events = await announced(gateway)
    assert (len(of(ObjectUploaded, events)), of(UploadCompleted, events)) == (2, [])
    assert len(await stored(gateway)) == 2
    del reader


async def test_the_same_request_again_does_no_harm(address, gateway):
    """Another upload with the same content: ingest knows instances by their content."""
    body = multipart(instance(1), instance(2))
    first, second = [await post(address, body) for _ in range(2)]
    assert first.json() == second.json()
    etags = [one.object.etag for one in of(ObjectUploaded, await announced(gateway))]
    assert len(etags) == 4
    assert len(set(etags)) == 2


async def test_large_instances_go_through_a_file(address, gateway, settings):
    """More than a part may take in memory: the same bytes in the inbox, and nothing left in the scratch folder."""
    large = [instance(n, Rows=1000, Columns=1100, PixelData=bytes([n]) * 2_200_000) for n in range(3)]
    answer = await post(address, multipart(large[0], instance(9), *large[1:]), f"/studies/{STUDY}")
    assert answer.status_code == 200
    assert sorted((await stored(gateway)).values()) == sorted([instance(9), *large])
    assert not list(settings.scratch.iterdir())


class Flaky(LocalStore):
    """A folder whose disk refuses every second object."""

    def __init__(self, root, bucket):
        super().__init__(root, bucket)
        self.asked = 0

    async def write(self, key, body, media_type="application/octet-stream"):
        self.asked += 1
        if self.asked % 2 == 0:
            raise StoreUnavailableError("the disk does not answer")
        return await super().write(key, body, media_type)


async def test_what_the_store_does_not_take_is_told_and_keeps_the_upload_open(gateway, settings, tmp_path):
    """202 with `out of resources`: the client will send it again, so this was not the end; 503 where nothing was taken."""
    inbox = Flaky(tmp_path / "inbox", "inbox")
    flaky = replace(gateway, stores=replace(gateway.stores, inbox=inbox))
    async with serve(flaky, "127.0.0.1", 0) as port:
        address = f"http://127.0.0.1:{port}"
        answer = await post(address, multipart(instance(1), instance(2)))
        assert (answer.status_code, reasons(answer)) == (202, [0xA700])
        assert of(UploadCompleted, await announced(gateway)) == []
        assert await uploads(gateway) == [("stow", "complete", 1)]
        inbox.asked = 1
        answer = await post(address, multipart(instance(2)))
        assert (answer.status_code, reasons(answer)) == (503, [0xA700])
        assert int(answer.headers["retry-after"]) > 0


async def test_too_many_parts_are_one_clear_problem(address, gateway, monkeypatch):
    """413; what was stored until then is announced."""
    monkeypatch.setattr(storing, "MOST_INSTANCES", 2)
    answer = await post(address, multipart(*map(instance, range(3))))
    assert (answer.status_code, answer.json()["title"]) == (413, "Too many instances")
    assert len(of(ObjectUploaded, await announced(gateway))) == 2


async def test_objects_lie_in_their_project(address, gateway):
    """The key says whose they are; what names no project is refused."""
    answer = await post(address, multipart(instance(1)), "/studies?project=ward-7")
    assert answer.status_code == 200
    assert [key.split("/uploads/")[0] for key in await stored(gateway)] == ["projects/ward-7"]
    assert (await post(address, multipart(instance(1)), "/studies?project=../x")).status_code == 422


async def test_the_answer_can_be_xml(address):
    """Native DICOM Model (PS3.19 A.1), sequences and all."""
    body = multipart(instance(1), instance(2, StudyInstanceUID="1.2.9"))
    answer = await post(address, body, f"/studies/{STUDY}", Accept="application/dicom+xml")
    assert (answer.status_code, answer.headers["content-type"]) == (202, "application/dicom+xml")
    root = ET.fromstring(answer.content)  # noqa: S314 - our own answer
    space = {"d": "http://dicom.nema.org/PS3.19/models/NativeDICOM"}
    failed = root.find("d:DicomAttribute[@keyword='FailedSOPSequence']/d:Item", space)
    values = {one.get("keyword"): one.findtext("d:Value", None, space) for one in failed}
    assert values["ReferencedSOPInstanceUID"] == "1.2.3.2"
    assert int(values["FailureReason"]) == 0xC409


async def test_a_client_may_ask_before_it_sends(address):
    """Expect: 100-continue, as curl does for large bodies: refused without a body, or told to go on."""
    host, port = address.removeprefix("http://").split(":")

    def ask(content_type):
        with closing(HTTPConnection(host, int(port), timeout=20)) as connection:
            body = multipart(instance(1))
            connection.putrequest("POST", "/dicomweb/studies")
            connection.putheader("Content-Type", content_type)
            connection.putheader("Content-Length", str(len(body)))
            connection.putheader("Expect", "100-continue")
            connection.endheaders()
            if content_type == TYPE:
                connection.send(body)
            return connection.getresponse().status

    assert await asyncio.to_thread(ask, TYPE) == 200
    assert await asyncio.to_thread(ask, "text/plain") == 415
