"""Uploads that nobody sees to any more, in a folder and in a bucket."""

from __future__ import annotations

from asyncio import CancelledError, create_task
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import update

from unit.gateway.uploads.kit import DICOM, stored, until
from voxelmill_gateway.tables import UPLOADS
from voxelmill_gateway.uploads.sweeping import Sweep
from voxelmill_shared.database import transaction

HOUR = timedelta(hours=1)


async def test_a_client_that_died(client, gateway, settings):
    """After the time that is set the upload is aborted, what had come is removed, and others are left alone."""
    died, alive = await client.begin(DICOM, DICOM), await client.begin(DICOM)
    for upload in (died, alive):
        await client.send(upload, 0, DICOM)
    now = datetime.now(UTC)
    idle = timedelta(seconds=settings.gateway_upload_idle_seconds)
    sweep = Sweep(gateway)
    assert await sweep.once(now + idle - HOUR) == 0

    async with transaction(gateway.engine) as connection:
        old = update(UPLOADS).where(UPLOADS.c.upload_id == died["upload_id"]).values(changed=now - HOUR)
        await connection.execute(old)
    assert await sweep.once(now - HOUR / 2 + idle) == 1
    assert (await client.state(died))["state"] == "aborted"
    assert (await client.send(died, 1, DICOM)).status_code == 409
    assert (await client.state(alive))["state"] == "open"
    assert set(await stored(gateway.stores.inbox)) == {f"uploads/{alive['upload_id']}/000000.dcm"}


async def test_what_comes_after_the_end_is_removed_when_nobody_can_write_any_more(client, gateway, settings):
    """An address holds after its upload was aborted: the sweep looks once more when it has ended, and then no more."""
    upload = await client.begin(DICOM)
    await client.ask("DELETE", f"/uploads/{upload['upload_id']}", 204)
    await gateway.stores.inbox.write(f"uploads/{upload['upload_id']}/000000.dcm", DICOM)
    sweep = Sweep(gateway)
    now = datetime.now(UTC)
    assert await sweep.once(now) == 0
    assert len(await stored(gateway.stores.inbox)) == 1
    later = now + timedelta(seconds=settings.gateway_upload_url_seconds + 60)
    assert await sweep.once(later) == 1
    assert await stored(gateway.stores.inbox) == {}
    assert await sweep.once(later) == 0


async def test_it_is_done_in_the_background(client, gateway):
    """An open gateway sweeps by itself, and goes on sweeping."""
    upload = await client.begin(DICOM)
    await client.send(upload, 0, DICOM)
    settings = gateway.settings.model_copy(
        update={"gateway_upload_idle_seconds": 0.001, "gateway_upload_sweep_seconds": 0.01}
    )

    task = create_task(Sweep(replace(gateway, settings=settings)).run())
    try:

        async def is_swept():
            return not await stored(gateway.stores.inbox)

        await until(is_swept)
    finally:
        task.cancel()
        with suppress(CancelledError):
            await task
    assert (await client.state(upload))["state"] == "aborted"
