"""The gateway over each kind of inbox in turn: what passes with a folder passes with a bucket."""

from __future__ import annotations

import pytest

from unit.gateway.uploads.kit import Client


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.s3)])
def kind(request):
    """Which inbox."""
    return request.param


@pytest.fixture
def settings(request, settings, kind):
    """Settings with the inbox in a folder or behind a prefix in a bucket."""
    if kind == "folder":
        return settings
    return settings.model_copy(update={"inbox_url": f"s3://{request.getfixturevalue('bucket')}/some/in box"})


@pytest.fixture
async def client(address):
    """Who uploads."""
    opened = Client(address)
    await opened.http.__aenter__()
    yield opened
    await opened.http.aclose()
