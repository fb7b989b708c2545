"""An upload that is broken off by closing the page goes on where it stopped, in a real Chromium."""

from __future__ import annotations

import hashlib
import random

import pytest

from browser.stories import told
from integration.gateway_kit import served, settings_for

SMALL, LARGE, PART = 1 << 20, 96 << 20, 16 << 20


@pytest.fixture
def folder(tmp_path):
    """Give a folder of some small files and a large one, which comes last."""
    folder = tmp_path / "study"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.dcm").write_bytes(bytes(128) + b"DICM" + bytes([number]) * (SMALL - 132))
    (folder / "large.dcm").write_bytes(bytes(128) + b"DICM" + random.Random(8).randbytes(LARGE - 132))
    return folder


def digest(body):
    """Stand for a body where it may differ: nobody wants to read it."""
    return hashlib.sha256(body).hexdigest()


async def _visit(chromium, tmp_path, folder, inbox, enough):
    async with served(settings_for(tmp_path / "data", inbox_url=inbox)) as (gateway, client):
        order = {
            "address": str(client.base_url).rstrip("/"),
            "chromium": chromium,
            "profile": str(tmp_path / "profile"),
            "folder": str(folder),
            "enough": enough,
        }
        seen = await told("resume.mjs", order)
        inbox = gateway.stores.inbox
        return seen, sorted([digest(await inbox.read(stat.key)) async for stat in inbox.list()])


async def test_an_upload_goes_on_after_the_page_was_closed(chromium, tmp_path, folder):
    """What has arrived is not sent again, not even of the file that was under way; nothing stays behind."""
    visit, bodies = await _visit(chromium, tmp_path, folder, str(tmp_path / "data" / "inbox"), 0.3)
    assert bodies == sorted(digest(path.read_bytes()) for path in folder.iterdir())
    (sent,) = visit["after"]
    first = int(sent["range"].removeprefix("bytes ").partition("-")[0])
    assert sent["range"].endswith(f"/{(folder / 'large.dcm').stat().st_size}")
    assert first > LARGE // 8
    assert (visit["kept"], visit["left"], visit["errors"]) == (1, 0, [])
    assert visit["line"].startswith("5 files uploaded")


async def test_an_upload_straight_into_a_bucket_goes_on_too(chromium, tmp_path, folder, bucket):
    """Each part is there or not: those that are there are not sent again."""
    visit, bodies = await _visit(chromium, tmp_path, folder, f"s3://{bucket}/inbox", 0.6)
    assert bodies == sorted(digest(path.read_bytes()) for path in folder.iterdir())
    before, after = (
        [int(number) for one in visit[when] if (number := one["url"].partition("partNumber=")[2].partition("&")[0])]
        for when in ("before", "after")
    )
    assert before == list(range(1, len(before) + 1))
    assert after == list(range(after[0], LARGE // PART + 1))
    assert 1 < len(before) <= after[0]
    assert (visit["kept"], visit["left"], visit["errors"]) == (1, 0, [])
