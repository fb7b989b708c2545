"""Result files that lie in a bucket: fetched from there, or through the gateway."""

from __future__ import annotations

import io
import zipfile

import httpx
import pytest_asyncio

from integration.gateway_kit import FILES, STL, Job, served, settings_for

ONE = Job(1)
NAME = f"/files/{ONE.job_id}/meshes/lung_left.stl"
PAGE = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}


@pytest_asyncio.fixture
async def world(tmp_path, bucket):
    settings = settings_for(tmp_path, results_url=f"s3://{bucket}/results")
    async with served(settings, [ONE]) as opened:
        yield opened


async def test_the_answer_leads_into_the_bucket(world):
    """Whoever follows gets the bytes without credentials, under their type and name; a range too."""
    _, client = world
    answer = await client.get(NAME)
    assert (answer.status_code, answer.headers["cache-control"]) == (307, "no-store")
    async with httpx.AsyncClient() as stranger:
        got = await stranger.get(answer.headers["location"])
        assert (got.status_code, got.content) == (200, STL)
        assert got.headers["content-type"] == "model/stl"
        assert got.headers["content-disposition"] == 'attachment; filename="lung_left.stl"'
        part = await stranger.get(answer.headers["location"], headers={"Range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, STL[5:10])
    assert (await client.head(NAME)).headers["content-length"] == str(len(STL))


async def test_a_page_of_this_host_gets_the_bytes_from_here(world):
    """A bucket lets no script of ours read it; a link that somebody follows leads there all the same."""
    _, client = world
    answer = await client.get(NAME, headers=PAGE)
    assert (answer.status_code, answer.content, answer.headers["vary"]) == (200, STL, "Sec-Fetch-Site")
    for asked, first, last in (("bytes=1048570-1048585", 1048570, 1048585), ("bytes=-3", len(STL) - 3, len(STL) - 1)):
        part = await client.get(NAME, headers={**PAGE, "Range": asked})
        assert (part.status_code, part.content) == (206, STL[first : last + 1])
    assert (await client.get(NAME, headers={**PAGE, "Sec-Fetch-Mode": "navigate"})).status_code == 307


async def test_nothing_leads_into_the_bucket_if_the_settings_say_so(tmp_path, bucket):
    """Where callers do not reach the store."""
    settings = settings_for(tmp_path, results_url=f"s3://{bucket}", gateway_redirect=False)
    async with served(settings, [ONE]) as (gateway, client):
        assert (await client.get(NAME)).content == STL
        await gateway.stores.results.write(ONE.keys.artefact("meshes/lung_left.stl"), b"another")
        assert (await client.get(NAME)).status_code == 409
        await gateway.stores.results.delete(ONE.keys.artefact("meshes/lung_left.stl"))
        assert (await client.get(NAME)).status_code == 404


async def test_an_archive_of_what_is_in_a_bucket(world):
    """Read piece by piece while it is sent."""
    _, client = world
    answer = await client.get(f"/jobs/{ONE.job_id}/archive.zip")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.read("meshes/lung_left.stl") == STL
        assert len(archive.namelist()) == len(FILES)  # the receipt in the place of the meshes' own archive
