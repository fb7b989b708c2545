"""Names of queues and rungs, topic rules, and the URLs that choose a transport."""

from __future__ import annotations

from datetime import timedelta

import pytest

from voxelmill_shared.transport.connect import open_transport
from voxelmill_shared.transport.embedded import EmbeddedTransport
from voxelmill_shared.transport.rabbit import RabbitTransport
from voxelmill_shared.transport.topic import topic_matches
from voxelmill_shared.transport.topology import TOPOLOGY, QueueSpec, rung_name


@pytest.mark.parametrize(
    ("pattern", "key", "fits"),
    [
        ("series.validated.v1", "series.validated.v1", True),
        ("series.validated.v1", "series.validated.v2", False),
        ("series.validated.v1", "series.validated", False),
        ("series.validated", "series.validated.v1", False),
        ("*", "series", True),
        ("*", "series.validated", False),
        ("*", "", False),
        ("series.*.v1", "series.meshed.v1", True),
        ("series.*.v1", "series.v1", False),
        ("series.*.v1", "series.a.b.v1", False),
        ("*.*", "a.b", True),
        ("#", "", True),
        ("#", "a", True),
        ("#", "a.b.c", True),
        ("series.#", "series", True),
        ("series.#", "series.a.b", True),
        ("series.#", "seriesx", False),
        ("#.v1", "v1", True),
        ("#.v1", "a.b.v1", True),
        ("#.v1", "a.v1.b", False),
        ("#.v1.#", "a.v1.b", True),
        ("a.#.b.#.c", "a.b.c", True),
        ("a.#.b.#.c", "a.x.b.y.z.c", True),
        ("a.#.b.#.c", "a.x.c", False),
        ("#.*", "", False),
        ("#.*", "a", True),
        ("*.#.*", "a", False),
        ("#.#", "", True),
        ("", "", True),
        ("", "a", False),
        ("a.*", "a.", True),
        ("a*", "ab", False),
    ],
)
def test_topic_rules(pattern: str, key: str, fits: bool) -> None:
    """`*` is exactly one word, `#` any number of words, everything else is itself."""
    assert topic_matches(pattern, key) is fits


def test_a_pattern_full_of_hashes_is_quick() -> None:
    """Matching takes time in proportion to pattern times key, whatever the pattern."""
    assert not topic_matches("#.a." * 200 + "b", "a." * 400 + "c")


@pytest.mark.parametrize(
    ("wait", "name"),
    [
        (timedelta(milliseconds=200), "200ms"),
        (timedelta(milliseconds=1500), "1500ms"),
        (timedelta(seconds=5), "5s"),
        (timedelta(seconds=90), "90s"),
        (timedelta(minutes=5), "5m"),
        (timedelta(hours=2), "120m"),
        (timedelta(0), "0s"),
    ],
)
def test_rung_names(wait: timedelta, name: str) -> None:
    """A rung is named after its wait, in the largest unit that fits."""
    assert rung_name(wait) == name


def test_queue_names() -> None:
    """Rungs and dead letters carry their queue's name."""
    queue = QueueSpec("segment.series-validated", ("series.validated.v1",))
    assert queue.dead_letters == "segment.series-validated.dlq"
    assert [queue.rung(number) for number in range(4)] == [
        f"segment.series-validated.retry.{wait}" for wait in ("5s", "30s", "5m", "30m")
    ]
    with pytest.raises(IndexError):
        queue.rung(4)


def test_every_event_is_wanted_by_the_index() -> None:
    """The index sees every event but the one that nothing has looked at yet, and the ones it publishes end there."""
    wants = {queue.name: queue.bindings for queue in TOPOLOGY.queues}
    for key in ("object.validated.v1", "object.rejected.v1", "series.indexed.v1", "stage.failed.v1", "stage.done.v1"):
        assert any(topic_matches(pattern, key) for pattern in wants["index.all-events"])
    assert not any(topic_matches(pattern, "object.uploaded.v1") for pattern in wants["index.all-events"])


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("embedded:///var/lib/voxelmill/queues.db", EmbeddedTransport),
        ("embedded:data/queues%20of%20mine.db", EmbeddedTransport),
        ("amqp://user:secret@host:5672/vhost", RabbitTransport),
        ("amqps://host", RabbitTransport),
    ],
)
async def test_urls(url: str, kind: type) -> None:
    """The scheme chooses; nothing is opened yet."""
    transport = open_transport(url)
    assert isinstance(transport, kind)
    await transport.close()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("kafka://host/topic", "kafka: unknown kind of broker"),
        ("queues.db", "queues.db: unknown kind of broker"),
        ("embedded:", "naming a file"),
        ("embedded://relative/path", "embedded:///absolute/path"),
        ("embedded:///folder/", "naming a file"),
        ("amqp:///vhost", "names no host"),
    ],
)
def test_urls_that_choose_nothing(url: str, reason: str) -> None:
    """An unknown or half URL is refused with what to write instead, and no password is repeated."""
    with pytest.raises(ValueError, match=reason):
        open_transport(url)
