"""What is counted, for Prometheus. One registry for the process; the label `service` tells services apart."""

from __future__ import annotations

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

REGISTRY = CollectorRegistry()

SETTLED = Counter(
    "voxelmill_messages_settled",
    "Messages settled, by outcome: done, retry, waiting, rejected, exhausted, released, unsettled.",
    ("service", "type", "outcome"),
    registry=REGISTRY,
)
PUBLISHED = Counter(
    "voxelmill_events_published", "Events published and confirmed.", ("service", "type"), registry=REGISTRY
)
IN_HAND = Gauge("voxelmill_messages_in_hand", "Messages being handled now.", ("service",), registry=REGISTRY)
HANDLE_SECONDS = Histogram(
    "voxelmill_handle_seconds",
    "Seconds from delivery to settlement.",
    ("service", "type"),
    buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 30, 60, 120, 300, 900, 3600),
    registry=REGISTRY,
)
CIRCUIT_OPEN = Gauge(
    "voxelmill_circuit_open",
    "1 while the service waits for a dependency and takes no messages.",
    ("service", "dependency"),
    registry=REGISTRY,
)
PROGRESS_LOST = Counter(
    "voxelmill_progress_events_lost",
    "Events about progress that the broker did not take; nothing waits for them.",
    ("stage",),
    registry=REGISTRY,
)
NOTIFICATIONS = Counter(
    "voxelmill_notifications",
    "What bucket notifications told of, by outcome: announced, outside (of the inbox), uploading (the gateway tells"
    " of it), ignored, undecodable.",
    ("source", "outcome"),
    registry=REGISTRY,
)
FOUND_BY_RECONCILER = Counter(
    "voxelmill_objects_found_by_reconciler",
    "Objects that nothing but the reconciler had told of when they got into the ledger.",
    registry=REGISTRY,
)
ANNOUNCEMENTS_HELD_BACK = Gauge(
    "voxelmill_announcements_held_back",
    "1 while new objects are not announced because ingest's queue is as long as it may be.",
    registry=REGISTRY,
)
NOTIFICATION_SOURCES = Gauge(
    "voxelmill_notification_sources",
    "1 for each source of notifications that this process listens to.",
    ("source",),
    registry=REGISTRY,
)
RECONCILER_INTERVAL = Gauge(
    "voxelmill_reconciler_interval_seconds",
    "The pause between two listings of the inbox; 0: this process never lists.",
    registry=REGISTRY,
)
LAST_PASS_TIME = Gauge(
    "voxelmill_reconciler_last_pass_timestamp_seconds",
    "When this process last listed the whole inbox; 0: not yet (another replica may).",
    registry=REGISTRY,
)
LAST_PASS_OBJECTS = Gauge(
    "voxelmill_reconciler_last_pass_objects", "How many objects that listing had.", registry=REGISTRY
)
LAST_PASS_SECONDS = Gauge("voxelmill_reconciler_last_pass_seconds", "How long it took.", registry=REGISTRY)


@cache
def settled(service: str, kind: str, outcome: str) -> Counter:
    """Return `SETTLED` with its labels, found once: looking labels up is half of what counting costs."""
    return SETTLED.labels(service, kind, outcome)


@cache
def published(service: str, kind: str) -> Counter:
    """Return `PUBLISHED` with its labels."""
    return PUBLISHED.labels(service, kind)


@cache
def handle_seconds(service: str, kind: str) -> Histogram:
    """Return `HANDLE_SECONDS` with its labels."""
    return HANDLE_SECONDS.labels(service, kind)


def exposition() -> tuple[bytes, str]:
    """Return the metrics in Prometheus' text format, and its content type."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
