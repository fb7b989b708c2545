"""What comes by STOW-RS, with every service running: a real series ends indexed, once, however it was sent."""

from __future__ import annotations

import asyncio
import time

import httpx
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient

from voxelmill_cli.engine import open_engine, state_settings
from voxelmill_gateway.gateway import open_gateway
from voxelmill_gateway.server import serve
from voxelmill_gateway.settings import GatewaySettings
from voxelmill_shared import catalog
from voxelmill_shared.database import reading

pytestmark = pytest.mark.data

CHEST = "ct_chest_lidc0314_2mm_j2k"
SLICES = 6
DEADLINE = 120.0
TYPE = 'multipart/related; type="application/dicom"; boundary=a-boundary'


@pytest.fixture
async def running(tmp_path):
    """Every service in this process, and a gateway that is served: the gateway and its address."""
    # No quiet time is short enough to close a series before the end of an upload does.
    settings = {"inbox_url": str(tmp_path / "inbox"), **state_settings(tmp_path)}
    settings |= {"organ": "lungs", "quality": "fast", "formats": ["stl"]}
    settings |= {"geometry_seconds": 600, "quiet_seconds": 600, "upload_seconds": 600}
    async with (
        open_engine(settings) as engine,
        open_gateway(engine.parts, GatewaySettings(**settings)) as gateway,
        serve(gateway, "127.0.0.1", 0) as port,
    ):
        yield gateway, f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def slices(data):
    """Neighbouring slices of the chest CT, as files."""
    files = [path for path in (data / CHEST).iterdir() if path.is_file()]
    heights = {path: float(pydicom.dcmread(path, stop_before_pixels=True).ImagePositionPatient[2]) for path in files}
    middle = len(files) // 2
    return [path.read_bytes() for path in sorted(files, key=heights.__getitem__)[middle : middle + SLICES]]


def body_of(parts):
    head = b"--a-boundary\r\nContent-Type: application/dicom\r\n\r\n"
    return b"".join(head + part + b"\r\n" for part in parts) + b"--a-boundary--"


async def post(address, parts):
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.post(
            f"{address}/dicomweb/studies", content=body_of(parts), headers={"Content-Type": TYPE}
        )
    assert answer.status_code == 200


async def jobs(gateway, uid):
    """Return the jobs of a series with the number of their instances and their status."""
    async with reading(gateway.engine) as connection:
        found = await catalog.series_jobs(connection, uid)
    return [(job.revision, job.instances, str(job.status)) for job in found]


async def until_there(gateway, uid, instances, statuses=("complete",)):
    """Wait until a revision has so many instances and one of the statuses."""
    deadline = time.monotonic() + DEADLINE
    while True:
        found = await jobs(gateway, uid)
        if any(one[1] == instances and one[2] in statuses for one in found):
            return found
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.1)


async def test_a_series_that_dicomweb_client_stores_is_indexed_and_found(running, slices):
    """The end of the request closes the series; the same request once more makes no new job."""
    gateway, address = running
    sent = [pydicom.dcmread(pydicom.filebase.DicomBytesIO(body)) for body in slices]
    study, series = sent[0].StudyInstanceUID, sent[0].SeriesInstanceUID
    client = DICOMwebClient(f"{address}/dicomweb")
    await asyncio.to_thread(client.store_instances, sent)
    assert await until_there(gateway, series, SLICES) == [(1, SLICES, "complete")]

    found = await asyncio.to_thread(client.search_for_instances, study, series)
    assert {one["00080018"]["Value"][0] for one in found} == {one.SOPInstanceUID for one in sent}

    await asyncio.to_thread(client.store_instances, sent, study)
    await post(address, slices[:1])  # whose settlement comes after that of the request before it
    deadline = time.monotonic() + DEADLINE
    while True:
        async with reading(gateway.engine) as connection:
            settled = await catalog.counts(connection)
        if sum(settled.objects.values()) >= 2 * SLICES + 1:
            break
        assert time.monotonic() < deadline, settled
        await asyncio.sleep(0.1)
    assert await jobs(gateway, series) == [(1, SLICES, "complete")]


async def test_two_requests_at_once_make_one_series(running, slices):
    """Each brings a half; whichever ends first, in the end one revision has all of them."""
    gateway, address = running
    uid = pydicom.dcmread(pydicom.filebase.DicomBytesIO(slices[0])).SeriesInstanceUID
    await asyncio.gather(post(address, slices[::2]), post(address, slices[1::2]))
    found = await until_there(gateway, uid, SLICES, ("processing", "complete"))
    assert found[0][1] == SLICES
