"""Server-sent events over HTTP: live, resumed, within the caller's projects, ended with the service."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import pytest_asyncio
from sqlalchemy import event

from integration.gateway_kit import NOON, Job, acting, add_progress, add_record, eventually, served, settings_for
from voxelmill_gateway import feed
from voxelmill_gateway.access.callers import Role
from voxelmill_gateway.feed import Feed, News, Nothing, Wanted
from voxelmill_shared.catalog.scope import EVERYTHING, Scope
from voxelmill_shared.database import transaction

pytestmark = pytest.mark.asyncio(loop_scope="module")

OURS, THEIRS = Job(1), Job(2, project="trial")
ALL = Wanted(EVERYTHING, ("series.", "object.", "stage.", "job."))


@pytest_asyncio.fixture(loop_scope="module")
async def world(tmp_path):
    async with served(settings_for(tmp_path), [OURS, THEIRS]) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def asking(tmp_path):
    async with served(settings_for(tmp_path, gateway_auth="on"), [OURS, THEIRS]) as opened:
        yield opened


def blocks(text):
    """Read a stream as a browser does: id, name and data of each block."""
    found = []
    for block in text.split("\n\n"):
        lines = [line.partition(": ") for line in block.splitlines() if not line.startswith(":")]
        fields = {name: value for name, _, value in lines}
        if "id" in fields or "event" in fields:
            found.append((fields.get("id"), fields.get("event"), json.loads(fields.get("data", "null"))))
    return found


def events(text):
    """Read only what a browser would give to a page."""
    return [block for block in blocks(text) if block[2] is not None]


async def record(gateway, *args, **fields):
    async with transaction(gateway.engine) as connection:
        await add_record(connection, *args, **fields)


@asynccontextmanager
async def listening(client, path="/events", **options):
    """Listen in the background; give what has come so far, as a list that grows."""
    came = []

    async def listen():
        async with client.stream("GET", path, **options) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["cache-control"] == "no-store"
            kept = ""
            async for piece in answer.aiter_text():
                kept += piece
                *whole, kept = kept.split("\n\n")
                for block in whole:
                    came.extend(blocks(block))

    task = asyncio.create_task(listen())

    async def begun():
        if task.done():
            task.result()
        return bool(came)

    await eventually(begun)
    try:
        yield came, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def told(came):
    return [(number, name) for number, name, data in came if data is not None]


async def test_what_happens_is_told_while_somebody_listens(world):
    """Records with their numbers as ids, progress without one; what people saw is not told."""
    gateway, client = world
    await record(gateway, 1, "series.validated.v1", OURS)
    async with listening(client) as (came, _):
        assert came[0] == ("1", None, None)  # where it begins, so that a client that is cut off at once misses nothing
        await record(gateway, 2, "access.recorded.v1", OURS, who="somebody")
        await record(gateway, 3, "series.segmented.v1", OURS, stage="segment", reason="x")
        async with transaction(gateway.engine) as connection:
            await add_progress(connection, OURS, "mesh", "decimate", 40, NOON)

        async def both():
            return len(told(came)) == 2

        await eventually(both)
    by_name = {name: (number, data) for number, name, data in came if data}
    assert by_name.keys() == {"series.segmented.v1", "job.progressed"}
    assert by_name["series.segmented.v1"] == (
        "3",
        {
            "what": "series.segmented.v1", "series_instance_uid": "1.2.1", "study_instance_uid": "1.2.1.0",
            "job_id": OURS.job_id, "stage": "segment", "outcome": "done", "reason": "x",
            "occurred": "2026-01-02T12:00:00+00:00",
        },
    )  # fmt: skip
    assert by_name["job.progressed"] == (
        None,
        {
            "series_instance_uid": "1.2.1", "study_instance_uid": "1.2.1.0", "job_id": OURS.job_id,
            "stage": "mesh", "step": "decimate", "percent": 40,
        },
    )  # fmt: skip


async def test_the_same_progress_is_told_once(world):
    """Although it is looked for again and again; what is said after it is told."""
    gateway, client = world
    async with listening(client) as (came, _):
        for minute, percent in enumerate((10, 20, 30)):
            async with transaction(gateway.engine) as connection:
                await add_progress(connection, OURS, "mesh", "decimate", percent, NOON + timedelta(seconds=minute))

            async def there(percent=percent):
                return any(data and data.get("percent") == percent for _, _, data in came)

            await eventually(there)
        await record(gateway, 1, "series.meshed.v1", OURS)

        async def last():
            return ("1", "series.meshed.v1") in told(came)

        await eventually(last)
    assert [data["percent"] for _, name, data in came if name == "job.progressed"] == [10, 20, 30]


async def test_whoever_comes_back_misses_nothing(world, monkeypatch):
    """Last-Event-ID, page by page, in order and each once; `wait=0` ends when all is told."""
    monkeypatch.setattr(feed, "_PAGE", 3)
    gateway, client = world
    for number in range(1, 12):
        await record(gateway, number, "series.validated.v1", OURS)
    answer = await client.get("/events", params={"wait": 0}, headers={"Last-Event-ID": "2"})
    assert [number for number, _, _ in events(answer.text)] == [str(number) for number in range(3, 12)]
    assert blocks(answer.text)[-1] == ("11", None, None)
    assert answer.text.startswith("retry: 2000\n")
    by_query = await client.get("/events", params={"wait": 0, "after": 9})
    assert [number for number, _, _ in events(by_query.text)] == ["10", "11"]
    for unknown in ("", "abc", "99999999999999999999999", "12", "999"):
        none = await client.get("/events", params={"wait": 0}, headers={"Last-Event-ID": unknown})
        assert (none.status_code, events(none.text)) == (200, []), unknown


async def test_one_series_or_one_job(world):
    """The filters hold for what was missed and for what comes."""
    gateway, client = world
    await record(gateway, 1, "series.validated.v1", OURS)
    await record(gateway, 2, "series.validated.v1", THEIRS)
    for query in ({"series": OURS.uid}, {"job": OURS.job_id}):
        missed = await client.get("/events", params={"after": 0, "wait": 0, **query})
        assert [number for number, _, _ in events(missed.text)] == ["1"]
    async with listening(client, params={"job": THEIRS.job_id}) as (came, _):
        await record(gateway, 3, "series.meshed.v1", OURS)
        await record(gateway, 4, "series.meshed.v1", THEIRS)

        async def one():
            return told(came)

        assert await eventually(one) == [("4", "series.meshed.v1")]


async def test_nothing_of_another_project_is_told(asking):
    """Neither live nor missed: of series, of objects without a series, of progress, of what is nobody's."""
    gateway, client = asking
    await record(gateway, 1, "series.validated.v1", THEIRS)
    await record(gateway, 2, "series.validated.v1", OURS)
    await record(gateway, 3, "object.rejected.v1", object_address="inbox#unknown")
    async with acting(gateway, client, Role.VIEWER, "default", name="ours") as caller:
        missed = await caller.get("/events", params={"after": 0, "wait": 0})
        assert [number for number, _, _ in events(missed.text)] == ["2"]
        async with listening(caller) as (came, _):
            await record(gateway, 4, "series.meshed.v1", THEIRS)
            async with transaction(gateway.engine) as connection:
                await add_progress(connection, THEIRS, "mesh", "decimate", 1, NOON)
            await record(gateway, 5, "dead-letter.replayed.v1", OURS)
            await record(gateway, 6, "series.meshed.v1", OURS)

            async def one():
                return told(came)

            assert await eventually(one) == [("6", "series.meshed.v1")]
    async with acting(gateway, client, Role.OPERATOR, name="whole") as caller:
        missed = await caller.get("/events", params={"after": 0, "wait": 0})
        assert [number for number, _, _ in events(missed.text)] == ["1", "2", "3", "4", "5", "6"]


async def test_a_rejected_object_is_told_to_its_project(asking):
    """It may have no series; its key says whose it is."""
    gateway, client = asking
    from voxelmill_shared.privacy import object_digest

    digest = object_digest("inbox/projects/trial/2.dcm")
    await record(gateway, 1, "object.rejected.v1", object_address=digest, outcome="rejected")
    async with acting(gateway, client, Role.VIEWER, "trial", name="theirs") as caller:
        missed = await caller.get("/events", params={"after": 0, "wait": 0})
        assert [number for number, _, _ in events(missed.text)] == ["1"]


async def test_many_listeners_cost_as_much_as_one(world):
    """One question for all of them, and none when the last has gone."""
    gateway, _ = world
    asked = []

    def note(_connection, _cursor, statement, *_):
        if "FROM audit" in statement:
            asked.append(statement)

    listeners = [asyncio.create_task(_count(gateway.feed, 3)) for _ in range(50)]
    await eventually(lambda: _true(len(gateway.feed._listeners) == 50))
    event.listen(gateway.engine.sync_engine, "before_cursor_execute", note)
    for number in range(1, 4):
        await record(gateway, number, "series.validated.v1", OURS)
    assert await asyncio.gather(*listeners) == [[1, 2, 3]] * 50
    assert len(asked) < 100  # of fifty listeners, each of whom would have asked three times at least
    await eventually(lambda: _true(gateway.feed._task.done()))


async def _true(so):
    return so


async def _count(listened, most):
    """Listen until so many numbers have come."""
    numbers = []
    async for news in listened.listen(ALL, seconds=20):
        if isinstance(news, News):
            numbers.append(news.number)
            if len(numbers) == most:
                return numbers
    return numbers


async def test_a_listener_who_does_not_read_is_let_go_and_comes_back_for_the_rest(world, monkeypatch):
    """What waits for one listener is bounded; resuming gives the rest."""
    monkeypatch.setattr(feed, "_MOST_WAITING", 5)
    gateway, _ = world
    slow = gateway.feed.listen(ALL)
    assert await anext(slow) == Nothing(0)
    waiting = asyncio.ensure_future(anext(slow))
    await asyncio.sleep(0)
    for number in range(1, 21):
        await record(gateway, number, "series.validated.v1", OURS)
    first = await waiting
    await eventually(lambda: _true(gateway.feed._listeners[0].ended))
    got = [first.number] + [news.number async for news in slow]
    assert got == list(range(1, len(got) + 1))
    assert len(got) < 20
    rest = [news.number async for news in gateway.feed.listen(ALL, after=got[-1], seconds=0) if isinstance(news, News)]
    assert got + rest == list(range(1, 21))


async def test_silence_is_told(world, monkeypatch):
    """A comment now and then, with the number up to which there was nothing for this listener."""
    monkeypatch.setattr(feed, "SILENCE", 0.05)
    gateway, client = world
    async with listening(client, params={"series": OURS.uid}) as (came, _):
        await record(gateway, 1, "series.validated.v1", THEIRS)

        async def moved():
            return came[-1] == ("1", None, None)

        await eventually(moved)
    assert told(came) == []


async def test_a_client_that_goes_away_is_forgotten(world):
    """Nothing of it stays, although nothing happens that could be sent to it."""
    gateway, client = world
    async with listening(client):
        assert len(gateway.feed._listeners) == 1
    await eventually(lambda: _true(not gateway.feed._listeners))


async def test_listeners_end_when_the_service_stops(tmp_path):
    """Their streams end whole, and the end does not wait for them."""
    async with served(settings_for(tmp_path, gateway_events_seconds=30), [OURS]) as (gateway, client):
        async with listening(client) as (_, task):
            gateway.stopping.set()
            async with asyncio.timeout(5):
                await task
        ended = await client.get("/events")
        assert ended.status_code == 200
        assert events(ended.text) == []


async def test_more_listeners_than_there_is_room_for(world, monkeypatch):
    """503, and a word when to come again."""
    monkeypatch.setattr(feed, "MOST_LISTENERS", 1)
    _, client = world
    async with listening(client):
        answer = await client.get("/events")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


async def test_a_catalog_that_is_away_is_waited_for(world, monkeypatch):
    """The listeners stay, and are told what happened meanwhile."""
    from voxelmill_shared.errors import DatabaseUnavailableError

    gateway, _ = world
    ask, failures = Feed._ask, []

    async def fails(self):
        if len(failures) < 3:
            failures.append(1)
            raise DatabaseUnavailableError("no answer")
        return await ask(self)

    monkeypatch.setattr(Feed, "_ask", fails)
    listener = asyncio.create_task(_count(gateway.feed, 1))
    await eventually(lambda: _true(len(failures) == 3))
    await record(gateway, 1, "series.validated.v1", OURS)
    assert await listener == [1]


async def test_a_scope_without_projects_is_told_nothing(world):
    """Which nobody should have; it must not mean everything."""
    gateway, _ = world
    await record(gateway, 1, "series.validated.v1", OURS)
    nobody = Wanted(Scope(frozenset()), ("series.",))
    assert [news async for news in gateway.feed.listen(nobody, after=0, seconds=0)] == [Nothing(1)]
