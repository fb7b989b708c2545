"""The page's files: what may be kept, what is compressed, what is no part of it, and what is said where it is missing."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI

from voxelmill_gateway import problems
from voxelmill_gateway.page import NOT_BUILT, pages


@pytest.fixture
def built(tmp_path):
    """A page as the build leaves it."""
    folder = tmp_path / "static"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html>")
    (folder / "favicon.svg").write_text("<svg/>")
    (folder / ".voxelmill").write_text("stamp")
    (folder / "assets" / "index-BoT8uCte.js").write_text("plain")
    (folder / "assets" / "index-BoT8uCte.js.gz").write_bytes(b"\x1f\x8bpacked")
    (folder / "assets" / "index-BoT8uCte.js.br").write_bytes(b"brotli")
    (folder / "assets" / "licenses.md").write_text("# Licenses")
    (tmp_path / "secret.txt").write_text("secret")
    return folder


def client(folder):
    app = FastAPI()
    problems.install(app)
    app.include_router(pages(folder))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver")


async def test_the_page_is_asked_for_each_time_and_what_it_names_is_kept_for_ever(built):
    """A new version is seen at the next visit; its scripts carry their content in their names."""
    page = client(built)
    for address in ("/", "/index.html"):
        index = await page.get(address)
        assert (index.status_code, index.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert index.headers["cache-control"] == "no-cache"
    script = await page.get("/assets/index-BoT8uCte.js", headers={"Accept-Encoding": "identity"})
    assert (script.text, script.headers["content-type"]) == ("plain", "text/javascript; charset=utf-8")
    assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert (await page.get("/assets/licenses.md")).headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, deflate, br, zstd", "br"),
        ("gzip", "gzip"),
        ("br;q=0, gzip;q=0.5", "gzip"),
        ("identity", None),
        ("", None),
    ],
)
async def test_a_client_is_given_the_smallest_copy_that_it_takes(built, accepted, coding):
    """The coding is named, and a cache is told that it was chosen."""
    headers = {"Accept-Encoding": accepted}
    async with client(built).stream("GET", "/assets/index-BoT8uCte.js", headers=headers) as script:
        assert script.headers.get("content-encoding") == coding
        assert script.headers["vary"] == "Accept-Encoding"
        expected = {"br": b"brotli", "gzip": b"\x1f\x8bpacked", None: b"plain"}[coding]
        assert b"".join([piece async for piece in script.aiter_raw()]) == expected


@pytest.mark.parametrize(
    "name",
    ["..%2F..%2Fsecret.txt", "..%2Findex.html", "%2e%2e", ".voxelmill", "missing-BoT8uCte.js", "index-BoT8uCte.js.gz"],
)
async def test_nothing_else_is_given_away(built, name):
    """What is no file of the page is not found, whatever lies in or beside the folder."""
    answer = await client(built).get(f"/assets/{name}")
    assert answer.status_code == 404
    assert "secret" not in answer.text


async def test_without_a_built_page_the_gateway_says_how_to_build_it(tmp_path):
    """The interface is there without it."""
    answer = await client(tmp_path).get("/")
    assert (answer.status_code, answer.text) == (200, NOT_BUILT)
    assert "make page" in answer.text
