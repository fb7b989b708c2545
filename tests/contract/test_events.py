"""What Voxelmill promises to other programs about its events, held to the code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from voxelmill_shared.events import EVENT_TYPES, Envelope, Event
from voxelmill_shared.events.asyncapi import PUBLISHERS, document
from voxelmill_shared.events.schemas import event_schema, schema_files, schema_name
from voxelmill_shared.transport.topology import TOPOLOGY

GOLDEN = Path(__file__).parent / "schemas"
ROOT = Path(__file__).parents[2]


def test_schemas_are_the_golden_ones() -> None:
    """A change of an event shows as a change of its golden schema, or this fails.

    If the change is meant and additive: `python -m voxelmill_shared.events.schemas tests/contract/schemas`.
    """
    golden = {path.name: path.read_text(encoding="utf-8") for path in GOLDEN.glob("*.json")}
    assert golden == schema_files()


@pytest.mark.parametrize("model", [Envelope, *EVENT_TYPES], ids=schema_name)
def test_golden_schemas_are_valid_json_schema(model: type[Event | Envelope]) -> None:
    """Every golden file is a JSON Schema of draft 2020-12 that names itself."""
    schema = json.loads((GOLDEN / f"{schema_name(model)}.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"].endswith(schema_name(model))


@pytest.mark.parametrize("model", EVENT_TYPES, ids=schema_name)
def test_schemas_allow_unknown_fields(model: type[Event]) -> None:
    """No schema forbids a field that it does not name: an additive change stays in v1."""
    assert '"additionalProperties": false' not in json.dumps(event_schema(model))


def test_asyncapi_document_is_up_to_date() -> None:
    """`docs/asyncapi.yaml` is what the command prints.

    If not: `python -m voxelmill_shared.events.asyncapi > docs/asyncapi.yaml`.
    """
    printed = subprocess.run(
        [sys.executable, "-m", "voxelmill_shared.events.asyncapi"], check=True, capture_output=True
    ).stdout
    assert (ROOT / "docs" / "asyncapi.yaml").read_bytes() == printed


def test_asyncapi_yaml_means_the_document() -> None:
    """The YAML reads back as the very document that was generated."""
    assert yaml.safe_load((ROOT / "docs" / "asyncapi.yaml").read_text(encoding="utf-8")) == document()


def test_asyncapi_references_resolve() -> None:
    """Every `$ref` of the document leads to something in it."""
    whole = document()
    references = list(_references(whole))
    assert references
    for reference in references:
        target: Any = whole
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
        assert target


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [reference for value in node.values() for reference in _references(value)]
    if isinstance(node, list):
        return [reference for value in node for reference in _references(value)]
    return []


def test_every_event_has_a_publisher_and_a_channel() -> None:
    """Nothing is published by nobody, and every type is a channel under its routing key."""
    assert set(PUBLISHERS) == set(EVENT_TYPES)
    assert all(PUBLISHERS.values())
    channels = document()["channels"]
    assert {channel["address"] for channel in channels.values()} == {event.type for event in EVENT_TYPES}


def test_every_queue_receives_what_it_is_bound_to() -> None:
    """Each queue that is bound to events has its operations; index receives every event but the hints and wishes."""
    operations = document()["operations"]
    queues = {operation["x-queue"]["name"] for operation in operations.values() if operation["action"] == "receive"}
    assert queues == {queue.name for queue in TOPOLOGY.queues if queue.bindings}
    indexed = {name.partition(".receives.")[2] for name in operations if name.startswith("index.receives.")}
    hints = {"object.uploaded.v1", "upload.completed.v1", "job.requested.v1"}
    assert indexed == {event.type for event in EVENT_TYPES} - hints


def test_every_event_is_wanted_by_a_queue() -> None:
    """No event of ours is unroutable."""
    operations = document()["operations"].values()
    received = {operation["channel"]["$ref"] for operation in operations if operation["action"] == "receive"}
    sent = {operation["channel"]["$ref"] for operation in operations if operation["action"] == "send"}
    assert received == sent
