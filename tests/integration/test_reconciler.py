"""What no notification told of is found by listing."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta

import pytest

from voxelmill_ingest.assembly import Patience
from voxelmill_ingest.findings import Refusal
from voxelmill_ingest.ledger import Ledger
from voxelmill_ingest.reasons import Reason
from voxelmill_ingest.reconciler import LEFT_OVER, Reconciler
from voxelmill_ingest.service import MIGRATIONS, VERSION_TABLE
from voxelmill_shared.database import open_database
from voxelmill_shared.events import Envelope, ObjectRef, open_envelope
from voxelmill_shared.migrations import upgrade
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.transport.embedded import EmbeddedTransport
from voxelmill_shared.transport.topology import INGEST, TOPOLOGY
from voxelmill_shared.uploads import upload_key


@pytest.fixture
async def parts(tmp_path):
    """A ledger, an inbox and a broker."""
    url = f"sqlite:///{tmp_path}/voxelmill.db"
    await upgrade(url, package=MIGRATIONS, version_table=VERSION_TABLE)
    engine = open_database(url)
    transport = EmbeddedTransport(tmp_path / "broker.db")
    await transport.declare(TOPOLOGY)
    inbox = LocalStore(tmp_path / "inbox", "inbox")
    await inbox.check()
    yield engine, inbox, transport
    await transport.close()
    await engine.dispose()


def reconciler(parts, **options):
    engine, inbox, transport = parts
    return Reconciler(engine, inbox, transport, "test", timedelta(seconds=1), **{"grace": timedelta(0), **options})


async def announced(transport, number):
    """Take `number` messages off ingest's queue; return the keys."""
    import asyncio

    keys, enough = [], asyncio.Event()

    async def callback(delivery):
        keys.append(open_envelope(Envelope.decode(delivery.message.body)).object.key)
        await delivery.ack()
        if len(keys) == number:
            enough.set()

    consumer = await transport.consume(INGEST, callback, prefetch=10)
    async with asyncio.timeout(20):
        await enough.wait()
    await consumer.cancel()
    return sorted(keys)


async def test_what_is_not_in_the_ledger_is_announced_once(parts):
    """A second pass does not announce again what is on its way."""
    _, inbox, transport = parts
    for key in ("a.dcm", "b/c.dcm"):
        await inbox.write(key, key.encode())
    reconciling = reconciler(parts)
    assert (await reconciling.once()).announced == 2
    assert (await reconciling.once()).announced == 0
    assert await announced(transport, 2) == ["a.dcm", "b/c.dcm"]


async def test_what_is_in_the_ledger_with_its_content_is_left_alone(parts):
    """Known content is not announced; other content under the same key is."""
    engine, inbox, _ = parts
    stored = await inbox.write("a.dcm", b"one")
    ledger = Ledger(engine, "test", Patience(), lambda: datetime.now(UTC))
    reference = ObjectRef(bucket="inbox", key="a.dcm", etag=stored.etag, size=stored.size)
    await ledger.settle(reference, datetime.now(UTC), Refusal(reason=Reason.NOT_DICOM, detail="x"), None)
    reconciling = reconciler(parts)
    assert (await reconciling.once()).announced == 0
    await inbox.write("a.dcm", b"another")
    assert (await reconciling.once()).announced == 1


async def test_what_never_arrives_is_announced_again(parts):
    """An announcement that was lost is repeated after a while."""
    _, inbox, _ = parts
    await inbox.write("a.dcm", b"one")
    reconciling = reconciler(parts, patience=timedelta(0))
    assert (await reconciling.once()).announced == 1
    assert (await reconciling.once()).announced == 1


async def test_a_file_that_is_still_being_copied_waits(parts):
    """Young objects are left for a later pass."""
    _, inbox, _ = parts
    await inbox.write("a.dcm", b"one")
    old = time.time() - 3600
    reconciling = reconciler(parts, grace=timedelta(minutes=30))
    assert (await reconciling.once()).announced == 0
    os.utime(inbox.root / "a.dcm", (old, old))
    assert (await reconciling.once()).announced == 1


async def test_objects_of_an_upload_are_left_to_the_gateway(parts):
    """It announces them when the upload is complete, and removes them when it is aborted; what it has lost is old.

    What the ledger knows and has changed since is announced at once.
    """
    engine, inbox, _ = parts
    lost, known = (upload_key("default", "0" * 32, number, ".dcm") for number in range(2))
    for key in (lost, known):
        stored = await inbox.write(key, b"one")
    ledger = Ledger(engine, "test", Patience(), lambda: datetime.now(UTC))
    reference = ObjectRef(bucket="inbox", key=known, etag=stored.etag, size=stored.size)
    await ledger.settle(reference, datetime.now(UTC), Refusal(reason=Reason.NOT_DICOM, detail="x"), None)
    reconciling = reconciler(parts)
    found = await reconciling.once()
    assert (found.uploading, found.known, found.announced) == (1, 1, 0)
    await inbox.write(known, b"another")
    assert (await reconciling.once()).announced == 1
    old = time.time() - (LEFT_OVER + timedelta(minutes=1)).total_seconds()
    os.utime(inbox.root / lost, (old, old))
    assert (await reconciling.once()).announced == 1


async def test_a_name_that_no_event_can_carry_is_passed_over(parts):
    """A file name that is no UTF-8 stops neither the listing nor the others."""
    _, inbox, _ = parts
    await inbox.write("good.dcm", b"one")
    with open(os.fsencode(inbox.root) + b"/bad-\xff.dcm", "wb") as file:  # noqa: ASYNC230, PTH123 - a name of bytes
        file.write(b"two")
    assert (await reconciler(parts).once()).announced == 1


async def test_what_never_arrives_is_announced_ever_less_often(parts):
    """The waits double from two minutes to a day: an object that ends as a dead letter does not make another soon."""
    _, inbox, _ = parts
    await inbox.write("a.dcm", b"one")
    now = [0.0]
    reconciling = reconciler(parts, clock=lambda: now[0])
    assert (await reconciling.once()).announced == 1
    waits = [120 * 2**doubled for doubled in range(9)] + [61440, 86400, 86400]
    for wait in waits:
        now[0] += wait - 1
        assert (await reconciling.once()).announced == 0
        now[0] += 2
        assert (await reconciling.once()).announced == 1


async def test_what_is_no_longer_listed_is_forgotten(parts):
    """An object that went and came back is a new one: announced at once, and no memory is kept of the other."""
    _, inbox, _ = parts
    await inbox.write("a.dcm", b"one")
    reconciling = reconciler(parts)
    assert (await reconciling.once()).announced == 1
    await inbox.delete("a.dcm")
    assert (await reconciling.once()).announced == 0
    await inbox.write("a.dcm", b"one")
    assert (await reconciling.once()).announced == 1


async def test_a_time_in_the_future_is_old_enough(parts):
    """A file from a machine whose clock is wrong is not passed over for years."""
    _, inbox, _ = parts
    await inbox.write("a.dcm", b"one")
    future = time.time() + 10 * 365 * 86400
    os.utime(inbox.root / "a.dcm", (future, future))
    assert (await reconciler(parts, grace=timedelta(minutes=30)).once()).announced == 1
