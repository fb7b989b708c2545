"""WADO-RS: what is given, in which form, and what is said where it cannot be given."""

from __future__ import annotations

from io import BytesIO

import httpx
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from sqlalchemy import select

from unit.gateway.dicomweb.catalogue_kit import catalogue, ct, encoded
from voxelmill_gateway.access.callers import Caller, Role
from voxelmill_gateway.dicomweb.instances import instances
from voxelmill_gateway.tables import OUTBOX
from voxelmill_shared.database import reading
from voxelmill_shared.events import Envelope, open_envelope

DICOM = 'multipart/related; type="application/dicom"'


from_both = pytest.mark.parametrize("inbox", ["folder", pytest.param("bucket", marks=pytest.mark.s3)], indirect=True)
"""What lies in a folder is sent by the system, what lies in a bucket is read and passed on."""


@pytest.fixture
def inbox(request):
    """Where instances lie."""
    return getattr(request, "param", "folder")


@pytest.fixture
def settings(request, settings, inbox):
    if inbox == "folder":
        return settings
    return settings.model_copy(update={"inbox_url": f"s3://{request.getfixturevalue('bucket')}"})


@pytest.fixture
async def http(address):
    async with httpx.AsyncClient(base_url=f"{address}/dicomweb", timeout=30) as client:
        yield client


def where(uids):
    study, series, sop = uids
    return f"/studies/{study}/series/{series}/instances/{sop}"


def parts_of(response):
    """Return the parts of a multipart answer: headers and body."""
    boundary = response.headers["content-type"].partition("boundary=")[2].encode()
    pieces = response.content.split(b"--" + boundary)
    assert pieces[0] == b""
    assert pieces[-1] == b"--\r\n"
    found = []
    for piece in pieces[1:-1]:
        head, _, body = piece.partition(b"\r\n\r\n")
        lines = (line.partition(": ") for line in head.decode().strip().split("\r\n"))
        found.append(({name.lower(): value for name, _, value in lines}, body.removesuffix(b"\r\n")))
    return found


def rle(dataset):
    dataset.compress(RLELossless, generate_instance_uid=False)
    return dataset


@from_both
async def test_stored_bytes_come_unchanged_and_with_their_length(gateway, http):
    """What is stored in a syntax that is accepted comes byte for byte, and the length of the whole answer is told."""
    body = encoded(ct())
    uids = await catalogue(gateway, body)
    await catalogue(gateway, ct(number=2))
    response = await http.get("/studies/1.2.3/series/1.2.3.4", headers={"Accept": f"{DICOM}; transfer-syntax=*"})
    assert response.status_code == 200
    assert int(response.headers["content-length"]) == len(response.content)
    (head, first), _ = parts_of(response)
    assert first == body
    assert head["content-type"] == "application/dicom; transfer-syntax=1.2.840.10008.1.2.1"
    assert int(head["content-length"]) == len(body)
    assert head["content-location"].endswith(where(uids))
    alone = await http.get(where(uids), headers={"Accept": "application/dicom"})
    assert alone.content == body
    assert alone.headers["content-type"].startswith("application/dicom")


@from_both
async def test_an_object_of_several_pieces_comes_whole(gateway, http, monkeypatch):
    """An object that is read in many pieces is put together in their order."""
    monkeypatch.setattr("voxelmill_gateway.dicomweb.content.PIECE", 1000)
    body = encoded(ct(size=64))
    uids = await catalogue(gateway, body)
    ((_, got),) = parts_of(await http.get(where(uids), headers={"Accept": f"{DICOM}; transfer-syntax=*"}))
    assert got == body


@from_both
async def test_other_syntaxes_are_decoded_unless_they_are_asked_for(gateway, http):
    """Without a transfer syntax an object comes in Explicit VR Little Endian with the same pixels (PS3.18 8.7.3.4)."""
    implicit = ct(RescaleIntercept=-1000)
    implicit.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    for dataset in (rle(ct(RescaleIntercept=-1000)), implicit):
        await check_decoding(gateway, http, encoded(dataset))
    assert not list(gateway.scratch.root.glob("dicomweb-*"))


async def check_decoding(gateway, http, body):
    uids = await catalogue(gateway, body)
    stored = await http.get(where(uids), headers={"Accept": f"{DICOM}; transfer-syntax=*"})
    assert parts_of(stored)[0][1] == body
    for accept in (DICOM, "*/*", f'{DICOM}; transfer-syntax="1.2.840.10008.1.2.1"'):
        ((head, decoded),) = parts_of(await http.get(where(uids), headers={"Accept": accept}))
        assert head["content-type"].endswith(ExplicitVRLittleEndian)
        found = pydicom.dcmread(BytesIO(decoded))
        assert found.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        np.testing.assert_array_equal(found.pixel_array, ct().pixel_array)
        assert found.SOPInstanceUID == uids[2]
        assert found.RescaleIntercept == -1000
    single = await http.get(where(uids), headers={"Accept": "application/dicom"})
    assert single.content == decoded


async def test_what_cannot_be_given_in_an_accepted_form_is_refused(gateway, http):
    """A syntax that nothing is converted to, a media type that there is none of: 406, with what there is."""
    uids = await catalogue(gateway, ct())
    await catalogue(gateway, ct(number=2))
    for path, accept in (
        (where(uids), f"{DICOM}; transfer-syntax=1.2.840.10008.1.2.4.50"),
        (where(uids), "image/png"),
        ("/studies/1.2.3/series/1.2.3.4", "application/dicom"),
        (f"{where(uids)}/metadata", 'multipart/related; type="application/dicom+xml"'),
        (f"{where(uids)}/frames/1", 'multipart/related; type="image/jls"'),
        ("/studies", "text/html"),
    ):
        response = await http.get(path, headers={"Accept": accept})
        assert response.status_code == 406, accept
        assert response.headers["content-type"] == "application/problem+json"


@from_both
async def test_only_what_was_catalogued_is_served(gateway, http):
    """An object that was deleted is gone, one that was replaced is a conflict, and its new content never comes."""
    uids = await catalogue(gateway, ct(), "a.dcm")
    accept = {"Accept": f"{DICOM}; transfer-syntax=*"}
    await gateway.stores.inbox.write("a.dcm", encoded(ct(number=7)))
    for path in ("", "/metadata", "/frames/1", "/rendered", "/bulkdata/7FE00010"):
        headers = accept if not path else {}
        response = await http.get(where(uids) + path, headers=headers)
        assert response.status_code == 409, path
        assert response.json()["title"] == "Replaced"
    await gateway.stores.inbox.delete("a.dcm")
    for path in ("", "/metadata", "/frames/1", "/rendered"):
        response = await http.get(where(uids) + path, headers=accept if not path else {})
        assert response.status_code == 410, path
    unknown = await http.get("/studies/1.2.3/series/1.2.3.4/instances/1.2.999")
    assert unknown.status_code == 404


@from_both
async def test_a_stream_that_fails_midway_is_cut(gateway, http, caplog):
    """When a later instance of a series is gone, the answer breaks off: a part is never taken for the whole.

    That is a line in the log, and no traceback.
    """
    await catalogue(gateway, ct(number=1))
    _, _, second = await catalogue(gateway, ct(number=2))
    await gateway.stores.inbox.delete(f"{second}.dcm")
    with pytest.raises(httpx.RemoteProtocolError):
        await http.get("/studies/1.2.3/series/1.2.3.4", headers={"Accept": f"{DICOM}; transfer-syntax=*"})
    assert [record for record in caplog.records if record.exc_info] == []


async def test_other_projects_are_as_if_they_were_not_there(gateway):
    """Instances of a project are found by those who may see it and by nobody else."""
    uids = await catalogue(gateway, ct(), "projects/alpha/a.dcm")
    async with reading(gateway.engine) as connection:
        for projects, number in ((None, 1), ({"alpha"}, 1), ({"beta"}, 0), (set(), 0)):
            scope = Caller("x", Role.VIEWER, None if projects is None else frozenset(projects)).scope()
            assert len(await instances(connection, scope, uids[0], None, None)) == number


async def test_derived_segmentations_are_served_like_any_instance(gateway, http):
    """A DICOM segmentation among the results is found, described and retrieved by the same addresses."""
    body = encoded(ct(series="1.2.3.77", Modality="SEG"))
    uids = await catalogue(gateway, body, "series/r1/job/segmentation/segmentation.dcm", derived_from="job")
    response = await http.get(where(uids), headers={"Accept": f"{DICOM}; transfer-syntax=*"})
    assert parts_of(response)[0][1] == body
    (found,) = (await http.get("/studies/1.2.3/series")).json()
    assert found["00080060"]["Value"] == ["SEG"]
    assert found["00201209"]["Value"] == [1]
    (described,) = (await http.get(f"{where(uids)}/metadata")).json()
    assert described["00080018"]["Value"] == [uids[2]]


async def test_a_client_that_has_it_gets_no_bytes(gateway, http):
    """Every answer has an entity tag, and who sends it back is told that nothing has changed."""
    uids = await catalogue(gateway, ct())
    for path in ("", "/metadata", "/frames/1", "/rendered", "/thumbnail"):
        first = await http.get(where(uids) + path)
        again = await http.get(where(uids) + path, headers={"If-None-Match": first.headers["etag"]})
        assert (first.status_code, again.status_code, again.content) == (200, 304, b""), path
    await catalogue(gateway, ct(number=2))
    before = await http.get("/studies/1.2.3/metadata")
    await catalogue(gateway, ct(number=3))
    after = await http.get("/studies/1.2.3/metadata", headers={"If-None-Match": before.headers["etag"]})
    assert len(after.json()) == 3


async def test_long_headers_are_read_to_their_end(gateway, http):
    """A header that is longer than what is read at first is read on; large values are fetched by their address."""
    value = bytes(range(256)) * 300
    dataset = ct()
    dataset.add_new(0x00091010, "OB", value)
    dataset.add_new(0x00091011, "OB", b"small!")
    item = ct()
    del item.PixelData
    item.add_new(0x00091012, "OB", value[::-1])
    dataset.ReferencedImageSequence = [item]
    uids = await catalogue(gateway, dataset)
    (found,) = (await http.get(f"{where(uids)}/metadata")).json()
    assert found["00091011"]["InlineBinary"]
    bulk = found["00091010"]["BulkDataURI"]
    single = await http.get(bulk, headers={"Accept": "application/octet-stream"})
    assert single.content == value
    nested = found["00081140"]["Value"][0]["00091012"]["BulkDataURI"]
    assert nested.endswith("/bulkdata/00081140/0/00091012")
    assert parts_of(await http.get(nested))[0][1] == value[::-1]
    for path in ("00091099", "00081140/7/00091012", "00100010"):
        assert (await http.get(f"{where(uids)}/bulkdata/{path}")).status_code == 404, path


async def test_pictures_of_several(gateway, http):
    """A series is drawn instance by instance where a multipart body is asked for, and by its middle one otherwise."""
    for number in (1, 2, 3):
        await catalogue(gateway, ct(number=number, WindowCenter=1000, WindowWidth=4000))
    series = "/studies/1.2.3/series/1.2.3.4/rendered"
    parts = parts_of(await http.get(series, headers={"Accept": 'multipart/related; type="image/png"'}))
    levels = [np.asarray(Image.open(BytesIO(body))).mean() for _, body in parts]
    assert levels == sorted(levels)
    assert len(levels) == 3
    middle = await http.get(series, headers={"Accept": "image/png"})
    assert middle.content == parts[1][1]


async def test_parameters_that_make_no_sense(gateway, http):
    """A window or a viewport that makes no sense is refused, and nothing is drawn."""
    uids = await catalogue(gateway, ct())
    for parameters in (
        *("window=1", "window=1,0,linear", "window=1,2,cubic", "window=nan,2,linear", "quality=0"),
        *("viewport=0,10", "viewport=99999,1", "viewport=1", "viewport=10,10,500,500,3,3"),
    ):
        response = await http.get(f"{where(uids)}/rendered?{parameters}")
        assert response.status_code in {400, 422}, parameters


async def test_viewport_shows_a_part_and_flips(gateway, http):
    """The source of a viewport is cut out and scaled; a negative size mirrors it (PS3.18 8.3.5.1.3)."""
    uids = await catalogue(gateway, ct(WindowCenter=1128, WindowWidth=257, RescaleIntercept=0))
    png = {"Accept": "image/png"}
    whole = np.asarray(Image.open(BytesIO((await http.get(f"{where(uids)}/rendered", headers=png)).content)))
    for source, expected in (
        ("4,2,8,8", whole[2:10, 4:12]),
        ("0,0,-16,16", whole[:, ::-1]),
        ("0,0,16,-16", whole[::-1]),
    ):
        size = f"{expected.shape[1]},{expected.shape[0]}"
        response = await http.get(f"{where(uids)}/rendered?viewport={size},{source}", headers=png)
        np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(response.content))), expected)


async def test_bad_searches_are_refused_and_unknown_attributes_passed_over(gateway, http):
    """What is no attribute, date or number is refused; an attribute that cannot be matched is passed over, and said."""
    await catalogue(gateway, ct())
    for parameters in (
        "Patient=1",
        "StudyDate=yesterday",
        "StudyDate=-",
        "limit=-1",
        "offset=x",
        "fuzzymatching=perhaps",
    ):
        assert (await http.get(f"/studies?{parameters}")).status_code == 400, parameters
    response = await http.get("/studies?PatientComments=x")
    assert "PatientComments" in response.headers["warning"]
    response = await http.get("/studies?fuzzymatching=true&PatientName=Fantom")
    assert response.status_code == 204
    assert "fuzzymatching" in response.headers["warning"]
    assert (await http.get("/studies?limit=0")).status_code == 204
    for path in ("/studies/x", "/studies/1.2.3/series/%2e%2e%2f", f"/studies/{'1' * 65}"):
        assert (await http.get(path)).status_code in {404, 422}, path


async def test_reads_are_on_record(gateway, http):
    """Who searches, reads or looks at pictures is written down before the answer leaves, without what was searched."""
    uids = await catalogue(gateway, ct())
    for path in ("/studies?PatientID=P-1", f"{where(uids)}/frames/1", f"{where(uids)}/rendered"):
        await http.get(path)
    async with reading(gateway.engine) as connection:  # nobody takes the events here: they wait in the outbox
        recorded = [Envelope.decode(body) for body in (await connection.execute(select(OUTBOX.c.body))).scalars()]
    assert {"search", "read", "rendered"} <= {open_envelope(envelope).action for envelope in recorded}
    assert "P-1" not in str(recorded)
