"""`voxelmill reconcile`: one pass over the inbox, and how it says what it found."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

import pytest

from e2e.command import voxelmill
from servers.private import free_ports
from voxelmill_ingest.assembly import Patience
from voxelmill_ingest.findings import Refusal
from voxelmill_ingest.ledger import Ledger
from voxelmill_ingest.reasons import Reason
from voxelmill_ingest.service import MIGRATIONS, VERSION_TABLE
from voxelmill_shared.database import open_database
from voxelmill_shared.events import ObjectRef
from voxelmill_shared.migrations import upgrade
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.transport.embedded import EmbeddedTransport
from voxelmill_shared.transport.topology import INGEST, TOPOLOGY


async def put(data, *keys):
    """Put objects into the folder's inbox, an hour ago."""
    inbox = LocalStore(data / "inbox", "inbox")
    stored = [await inbox.write(key, key.encode()) for key in keys]
    for key in keys:
        os.utime(data / "inbox" / key, (time.time() - 3600,) * 2)
    return [ObjectRef(bucket="inbox", key=one.key, etag=one.etag, size=one.size) for one in stored]


async def waiting(data):
    """How many messages wait for ingest."""
    transport = EmbeddedTransport(data / "broker.db")
    counts = {count.queue: count.ready for count in await transport.counts()}
    await transport.close()
    return counts.get(INGEST.name, 0)


@pytest.fixture
async def data(tmp_path):
    """A folder as `voxelmill up` leaves it: of three objects the ledger knows one."""
    data = tmp_path / "da ta"
    url = f"sqlite:///{data}/voxelmill.db"
    await upgrade(url, package=MIGRATIONS, version_table=VERSION_TABLE)
    transport = EmbeddedTransport(data / "broker.db")
    await transport.declare(TOPOLOGY)
    await transport.close()
    known, *_ = await put(data, "known.dcm", "a.dcm", "b/c.dcm")
    engine = open_database(url)
    ledger = Ledger(engine, "test", Patience(), lambda: datetime.now(UTC))
    await ledger.settle(known, datetime.now(UTC), Refusal(reason=Reason.NOT_DICOM, detail="x"), None)
    await engine.dispose()
    return data


async def test_a_pass_announces_what_the_ledger_lacks_and_says_how_much(data):
    """Looking alone announces nothing; then what is unknown is announced, once in a pass."""
    looked = voxelmill("reconcile", "--data", data, "--dry-run")
    assert (looked.code, await waiting(data)) == (0, 0)
    assert looked.out == f"{data / 'inbox'}: 3 objects listed, 1 already known, 2 would be announced\n"
    done = voxelmill("reconcile", "--data", data, "--json")
    assert (done.code, await waiting(data)) == (0, 2)
    assert {name: done.document[name] for name in ("listed", "known", "announced", "young", "exit_code")} == {
        "listed": 3,
        "known": 1,
        "announced": 2,
        "young": 0,
        "exit_code": 0,
    }


async def test_what_is_still_being_copied_is_left_alone(data):
    """A young file is told of; the grace is a setting."""
    await put(data, "new.dcm")
    os.utime(data / "inbox" / "new.dcm")
    done = voxelmill("reconcile", "--data", data, VOXELMILL_RECONCILE_GRACE_SECONDS="600")
    assert done.out.splitlines()[1] == "1 are too young and were left alone; run it again in a moment"


async def test_a_name_that_no_event_can_carry_fails_the_pass_alone(data):
    """The others are announced; exit code 1, and the name."""
    with open(os.fsencode(data / "inbox") + b"/bad-\xff.dcm", "wb") as file:  # noqa: ASYNC230, PTH123 - a name of bytes
        file.write(b"x")
    done = voxelmill("reconcile", "--data", data, VOXELMILL_RECONCILE_GRACE_SECONDS="0")
    assert (done.code, await waiting(data)) == (1, 2)
    assert "rename" in done.out


def test_no_installation_is_one_line(tmp_path):
    """Exit code 2, and nothing is made."""
    done = voxelmill("reconcile", "--data", tmp_path / "nowhere")
    assert done.code == 2
    assert "no installation there; name the folder" in done.err
    assert not (tmp_path / "nowhere").exists()


async def test_an_installation_without_a_ledger_is_one_line(tmp_path):
    """A database on which ingest has never run: what to do first."""
    engine = open_database(f"sqlite:///{tmp_path}/voxelmill.db")
    async with engine.connect():
        pass
    await engine.dispose()
    (tmp_path / "inbox").mkdir()
    done = voxelmill("reconcile", "--data", tmp_path)
    assert done.code == 2
    assert "the database has no ledger; start ingest" in done.err


@pytest.mark.parametrize(
    ("variable", "value"),
    [("VOXELMILL_BROKER_URL", "amqp://guest:guest@127.0.0.1:{port}/"), ("VOXELMILL_INBOX_URL", "{data}/gone")],
)
async def test_what_is_away_is_exit_code_3(data, variable, value):
    """A broker that does not answer, a folder that is not mounted."""
    done = voxelmill("reconcile", "--data", data, **{variable: value.format(port=free_ports(1), data=data)})
    assert done.code == 3, done.err
    assert done.err.splitlines()[-1].startswith("voxelmill: ")
