"""Dead letters and the audit trail over HTTP, at the embedded broker."""

from __future__ import annotations

import asyncio
import json

import pytest
import pytest_asyncio

from integration.gateway_kit import NOON, Job, acting, add_record, eventually, served, settings_for
from voxelmill_gateway.access.callers import Role
from voxelmill_shared import dead_letters
from voxelmill_shared.database import transaction
from voxelmill_shared.events import Envelope, ObjectRef, ObjectUploaded
from voxelmill_shared.transport.base import HEADER_ERROR_CLASS, HEADER_HISTORY, HEADER_REASON, Message
from voxelmill_shared.transport.topology import INDEX, INGEST, TOPOLOGY

pytestmark = pytest.mark.asyncio(loop_scope="module")

ONE = Job(1)
HISTORY = [{"attempt": 1, "at": "2026-01-02T12:00:00+00:00", "error_class": "store-unavailable", "reason": "no answer"}]


@pytest_asyncio.fixture(loop_scope="module")
async def world(tmp_path):
    async with served(settings_for(tmp_path, gateway_auth="on"), [ONE]) as opened:
        await opened[0].transport.declare(TOPOLOGY)
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def operator(world):
    async with acting(*world, Role.OPERATOR) as caller:
        yield caller


def uploaded(key):
    reference = ObjectRef(bucket="inbox", key=key, etag="e", size=1)
    return Envelope.wrap(ObjectUploaded(object=reference, found_by="command"), "test")


async def bury(gateway, *keys, error_class="killed", body=None):
    """Let messages about objects die."""
    left = len(keys)
    died = asyncio.Event()

    async def end(delivery):
        nonlocal left
        headers = {HEADER_ERROR_CLASS: error_class, HEADER_REASON: "out of memory", HEADER_HISTORY: json.dumps(HISTORY)}
        await delivery.dead_letter(headers)
        left -= 1
        if not left:
            died.set()

    consumer = await gateway.transport.consume(INGEST, end, prefetch=10)
    envelopes = [uploaded(key) for key in keys]
    await gateway.transport.publish(
        [Message(body or each.encode(), each.routing_key, str(each.id)) for each in envelopes]
    )
    await asyncio.wait_for(died.wait(), 20)
    await consumer.cancel()


async def ready(gateway):
    return {count.queue: count.ready for count in await gateway.transport.counts()}[INGEST.name]


async def test_dead_letters_are_listed_with_counts(world, operator):
    """Page by page, filtered, and how many there are of each queue and error class."""
    gateway, _ = world
    await bury(gateway, "a.dcm", "b.dcm")
    await bury(gateway, "c.dcm", error_class="store-unavailable")
    page = (await operator.get("/dead-letters", params={"limit": 2})).json()
    assert ([one["object"] for one in page["items"]], page["total"]) == (["inbox/a.dcm", "inbox/b.dcm"], 3)
    (queue,) = page["queues"]
    assert (queue["queue"], queue["count"]) == (INGEST.name, 3)
    assert queue["by_error_class"] == {"killed": 2, "store-unavailable": 1}
    rest = (await operator.get(page["next"])).json()
    assert ([one["object"] for one in rest["items"]], rest["next"]) == (["inbox/c.dcm"], None)
    some = (await operator.get("/dead-letters", params={"error": "killed", "service": "ingest"})).json()
    assert some["total"] == 2
    for parameters in ({"service": "mesh"}, {"series": "1.2.3"}, {"since": "2999-01-01T00:00:00Z"}):
        assert (await operator.get("/dead-letters", params=parameters)).json()["total"] == 0
    unknown = await operator.get("/dead-letters", params={"service": "nobody"})
    assert (unknown.status_code, "ingest" in unknown.json()["detail"]) == (422, True)


async def test_one_dead_letter_is_shown_whole(world, operator):
    """Each attempt, the event, and whether its object is what it was."""
    gateway, _ = world
    await gateway.stores.inbox.write("a.dcm", b"other")
    await bury(gateway, "a.dcm")
    (letter,) = (await operator.get("/dead-letters")).json()["items"]
    shown = (await operator.get(f"/dead-letters/{letter['queue']}/{letter['handle']}")).json()
    assert shown.items() >= letter.items()
    assert shown["history"] == HISTORY
    assert shown["event"]["data"]["object"]["key"] == "a.dcm"
    (there,) = shown["objects"]
    assert (there["address"], there["exists"], there["same"], there["size"]) == ("inbox/a.dcm", True, False, 5)
    for path in (f"nowhere/{letter['handle']}", f"{INGEST.name}/{letter['handle'][:-1]}", f"{INGEST.name}/x"):
        assert (await operator.get(f"/dead-letters/{path}")).status_code == 404


async def test_a_body_that_is_no_event_is_shown_by_its_beginning(world, operator):
    """Escaped, so that no terminal and no page takes it for a command."""
    gateway, _ = world
    await bury(gateway, "x", body=b"\x1b[2J<script>\xff")
    (letter,) = (await operator.get("/dead-letters")).json()["items"]
    shown = (await operator.get(f"/dead-letters/{letter['queue']}/{letter['handle']}")).json()
    assert (shown["event"], shown["objects"], shown["begins"]) == (None, [], "\\x1b[2J<script>\\xff")


async def test_replay_puts_letters_back(world, operator):
    """By handles, by filters, all; a dry run changes nothing; what is named and not there is said."""
    gateway, _ = world
    await bury(gateway, "a.dcm", "b.dcm", "c.dcm")
    await bury(gateway, "d.dcm", error_class="store-unavailable")
    handles = {one["object"]: one["handle"] for one in (await operator.get("/dead-letters")).json()["items"]}

    async def replay(**order):
        answer = await operator.post("/dead-letters/replay", json=order)
        assert answer.status_code == 200, answer.text
        return answer.json()

    dry = await replay(all=True, dry_run=True)
    assert dry == {"matched": 4, "replayed": 0, "gone": 0, "missing": [], "dry_run": True}
    assert await ready(gateway) == 0
    one = await replay(handles=[handles["inbox/a.dcm"], "not-there"])
    assert (one["matched"], one["replayed"], one["missing"]) == (1, 1, ["not-there"])
    assert (await replay(error="store-unavailable"))["replayed"] == 1
    assert (await replay(all=True, rate=0))["replayed"] == 2
    assert (await replay(all=True))["matched"] == 0
    assert await ready(gateway) == 4


@pytest.mark.parametrize(
    "order", [{}, {"all": True, "error": "x"}, {"handles": ["x"], "series": "1.2"}, {"all": False}]
)
async def test_replay_must_be_told_what(operator, order):
    """Handles, filters or all: one of the three, so that nobody replays everything by an empty filter."""
    assert (await operator.post("/dead-letters/replay", json=order)).status_code == 422


async def test_whoever_replays_and_drops_is_on_record(world, operator):
    """The notices that index writes down name the caller; dropping takes an admin."""
    gateway, _ = world
    await bury(gateway, "a.dcm", "b.dcm")
    first, second = (await operator.get("/dead-letters")).json()["items"]
    address = f"/dead-letters/{first['queue']}/{first['handle']}"
    assert (await operator.delete(address)).status_code == 403
    async with acting(*world, Role.ADMIN, name="boss") as admin:
        assert (await admin.delete(address)).status_code == 204
        assert (await admin.delete(address)).status_code == 404
    await operator.post("/dead-letters/replay", json={"handles": [second["handle"]]})
    assert await dead_letters.look(gateway.transport) == []
    told = []

    async def take(delivery):
        told.append(json.loads(delivery.message.body))
        await delivery.ack()

    consumer = await gateway.transport.consume(INDEX, take, prefetch=10)
    await eventually(lambda: _has(told, 2))
    await consumer.cancel()
    done = {each["type"].rpartition("voxelmill.")[2]: each["data"]["who"] for each in told if "queue" in each["data"]}
    assert done["dead-letter.dropped.v1"].startswith("boss@")
    assert done["dead-letter.replayed.v1"].startswith("somebody@")


async def _has(told, most):
    return len([each for each in told if "queue" in each["data"]]) >= most


async def test_the_audit_trail_is_read_page_by_page(world):
    """By number, filtered; an admin of the installation alone, who is on record for it."""
    gateway, _ = world
    async with transaction(gateway.engine) as connection:
        for number in range(1, 6):
            await add_record(connection, number, "series.validated.v1", ONE if number < 3 else None)
        await add_record(connection, 6, "series.meshed.v1", ONE, who="voxelmill/mesh")
    async with acting(*world, Role.ADMIN, name="boss") as admin:
        first = await admin.get("/audit", params={"limit": 4})
        assert first.headers["cache-control"] == "no-store"
        page = first.json()
        assert ([one["number"] for one in page["items"]], page["total"]) == ([1, 2, 3, 4], 6)
        rest = (await admin.get(page["next"])).json()
        assert ([one["number"] for one in rest["items"]], rest["next"]) == ([5, 6], None)
        asked = {
            "uid": ({"uid": ONE.study}, [1, 2, 6]),
            "job": ({"job": ONE.job_id}, [1, 2, 6]),
            "what": ({"what": "series.meshed.v1"}, [6]),
            "since": ({"since": f"{NOON:%Y-%m-%dT%H}:05:00Z"}, [5, 6]),
            "until": ({"until": f"{NOON:%Y-%m-%dT%H}:02:00+00:00"}, [1]),
        }
        for parameters, numbers in asked.values():
            found = (await admin.get("/audit", params=parameters)).json()["items"]
            assert [one["number"] for one in found] == numbers, parameters
        for wrong in ({"limit": 501}, {"since": "2026-01-01T00:00:00"}, {"since": "0001-01-01T00:00:00+23:00"}):
            assert (await admin.get("/audit", params=wrong)).status_code == 422
    async with acting(*world, Role.ADMIN, "default", name="tenant") as tenant:
        assert (await tenant.get("/audit")).status_code == 403
    async with acting(*world, Role.OPERATOR, name="other") as other:
        assert (await other.get("/audit")).status_code == 403
