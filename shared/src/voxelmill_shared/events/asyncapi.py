"""The AsyncAPI 3.0 document of Voxelmill, generated from the events and the queues that stand in the code.

`python -m voxelmill_shared.events.asyncapi > docs/asyncapi.yaml`

A channel is a routing key of the exchange, a `receive` operation is one service's queue taking from it, and a `send`
operation is a service that publishes to it.
"""

from __future__ import annotations

import sys
from typing import Any

from voxelmill_shared.events.access import AccessRecorded
from voxelmill_shared.events.dead_letters import DeadLetterDropped, DeadLetterReplayed
from voxelmill_shared.events.envelope import CONTENT_TYPE, TYPE_PREFIX, Envelope, Event
from voxelmill_shared.events.jobs import JobProgressed, JobRequested
from voxelmill_shared.events.objects import ObjectRejected, ObjectUploaded, ObjectValidated, UploadCompleted
from voxelmill_shared.events.pseudonyms import PseudonymDisclosed
from voxelmill_shared.events.registry import EVENT_TYPES
from voxelmill_shared.events.schemas import shared_schemas
from voxelmill_shared.events.series import (
    SeriesIndexed,
    SeriesMeshed,
    SeriesSegmented,
    SeriesThumbnailed,
    SeriesValidated,
    StageFailed,
    StageSkipped,
)
from voxelmill_shared.events.yaml_text import to_yaml
from voxelmill_shared.transport.topic import topic_matches
from voxelmill_shared.transport.topology import EVENTS_EXCHANGE, TOPOLOGY, QueueSpec, rung_name
from voxelmill_shared.version import __version__

PUBLISHERS: dict[type[Event], tuple[str, ...]] = {
    ObjectUploaded: ("ingest", "gateway", "cli"),
    UploadCompleted: ("ingest", "gateway", "cli"),
    ObjectValidated: ("ingest",),
    ObjectRejected: ("ingest",),
    SeriesValidated: ("ingest",),
    SeriesThumbnailed: ("thumbnail",),
    SeriesSegmented: ("segment",),
    SeriesMeshed: ("mesh",),
    StageSkipped: ("thumbnail", "segment", "mesh"),
    StageFailed: ("ingest", "thumbnail", "segment", "mesh", "index"),
    SeriesIndexed: ("index",),
    DeadLetterReplayed: ("cli", "gateway"),
    DeadLetterDropped: ("cli", "gateway"),
    PseudonymDisclosed: ("ingest",),
    JobProgressed: ("segment", "mesh"),
    JobRequested: ("gateway",),
    AccessRecorded: ("gateway",),
}
"""Which parts publish an event (DESIGN: 1. The flow). `ingest` publishes uploads for the members of archives."""


def _channel(event_type: type[Event]) -> dict[str, Any]:
    name = event_type.__name__
    return {
        "address": event_type.type,
        "description": (event_type.__doc__ or "").partition("\n")[0],
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {"name": EVENTS_EXCHANGE, "type": "topic", "durable": True, "autoDelete": False},
                "bindingVersion": "0.3.0",
            }
        },
    }


def _operation(action: str, event_type: type[Event]) -> dict[str, Any]:
    channel = f"#/channels/{event_type.type}"
    return {
        "action": action,
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{event_type.__name__}"}],
    }


def _receive(queue: QueueSpec, event_type: type[Event]) -> dict[str, Any]:
    return {
        **_operation("receive", event_type),
        "summary": f"{queue.name.partition('.')[0]} takes {event_type.type}",
        "bindings": {"amqp": {"ack": True, "bindingVersion": "0.3.0"}},
        "x-queue": {
            "name": queue.name,
            "ladder": [rung_name(wait) for wait in queue.ladder],
            "deadLetters": queue.dead_letters,
        },
    }


def _send(publisher: str, event_type: type[Event]) -> dict[str, Any]:
    return {
        **_operation("send", event_type),
        "summary": f"{publisher} publishes {event_type.type}",
        "bindings": {"amqp": {"deliveryMode": 2, "mandatory": True, "bindingVersion": "0.3.0"}},
    }


def _operations() -> dict[str, Any]:
    operations: dict[str, Any] = {}
    for event_type in EVENT_TYPES:
        for publisher in PUBLISHERS[event_type]:
            operations[f"{publisher}.sends.{event_type.type}"] = _send(publisher, event_type)
        for queue in TOPOLOGY.queues:
            if any(topic_matches(binding, event_type.type) for binding in queue.bindings):
                service = queue.name.partition(".")[0]
                operations[f"{service}.receives.{event_type.type}"] = _receive(queue, event_type)
    return operations


def _message(event_type: type[Event]) -> dict[str, Any]:
    return {
        "name": TYPE_PREFIX + event_type.type,
        "contentType": CONTENT_TYPE,
        "correlationId": {
            "description": "The series revision's job, where there is one.",
            "location": "$message.payload#/correlationid",
        },
        "payload": {
            "allOf": [
                {"$ref": "#/components/schemas/Envelope"},
                {
                    "type": "object",
                    "properties": {
                        "type": {"const": TYPE_PREFIX + event_type.type},
                        "data": {"$ref": f"#/components/schemas/{event_type.__name__}"},
                    },
                },
            ]
        },
    }


def document() -> dict[str, Any]:
    """Return the AsyncAPI document as plain data."""
    return {
        "asyncapi": "3.0.0",
        "id": "urn:org:voxelmill",
        "info": {
            "title": "Voxelmill",
            "version": __version__,
            "description": (
                "Event-driven processing of medical images: DICOM and NIfTI in; previews, segmentation, meshes and an "
                "index out. A message body is one CloudEvents 1.0 JSON document in structured mode. Event ids are "
                "deterministic: the same fact published twice is the same event. Consumers ignore unknown fields."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": CONTENT_TYPE,
        "channels": {event_type.type: _channel(event_type) for event_type in EVENT_TYPES},
        "operations": _operations(),
        "components": {
            "messages": {event_type.__name__: _message(event_type) for event_type in EVENT_TYPES},
            "schemas": shared_schemas((Envelope, *EVENT_TYPES), "#/components/schemas/{model}"),
        },
    }


def main() -> int:
    """Print the document as YAML."""
    sys.stdout.write("# Generated by `python -m voxelmill_shared.events.asyncapi`; a test holds it to the code.\n")
    sys.stdout.write(to_yaml(document()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
