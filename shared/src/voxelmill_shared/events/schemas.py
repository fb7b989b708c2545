"""The JSON Schemas of the events: what is promised to other programs, in a form that a change cannot slip past.

`python -m voxelmill_shared.events.schemas DIRECTORY` writes one file for each event type and one for the envelope.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from voxelmill_shared.events.envelope import Envelope, Event
from voxelmill_shared.events.registry import EVENT_TYPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel

DIALECT = "https://json-schema.org/draft/2020-12/schema"
ENVELOPE = "cloudevents"
"""The name of the envelope's schema file."""


class _Untitled(GenerateJsonSchema):
    """Leaves out the titles that only repeat the names of fields."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the signature is pydantic's
        return False


def event_schema(model: type[Event | Envelope]) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of an event's data, or of the envelope, as a reader must accept it.

    Fields that are not named are allowed: an additive change stays in the same version.
    """
    schema = model.model_json_schema(schema_generator=_Untitled, mode="validation")
    return {"$schema": DIALECT, "$id": f"urn:voxelmill:{schema_name(model)}", **schema}


def schema_name(model: type[Event | Envelope]) -> str:
    """Name a schema: the event's type, `series.validated.v1`, or `cloudevents`."""
    return model.type if issubclass(model, Event) else ENVELOPE


def shared_schemas(models: Sequence[type[BaseModel]], reference: str) -> dict[str, Any]:
    """Return the schemas of models and of all that they are made of, by name, without repetition.

    Parameters
    ----------
    models
        Pydantic models.
    reference
        How a schema refers to another, with `{model}` for the name: `#/components/schemas/{model}`.
    """
    mode: JsonSchemaMode = "validation"
    _, schema = models_json_schema(
        [(model, mode) for model in models], ref_template=reference, schema_generator=_Untitled
    )
    definitions: dict[str, Any] = schema["$defs"]
    return definitions


def schema_files() -> dict[str, str]:
    """Return the text of every schema file by its name, `series.validated.v1.json`."""
    models: tuple[type[Event | Envelope], ...] = (Envelope, *EVENT_TYPES)
    return {
        f"{schema_name(model)}.json": json.dumps(event_schema(model), indent=2, ensure_ascii=False) + "\n"
        for model in models
    }


def main(arguments: Sequence[str]) -> int:
    """Write all schema files into the directory that the first argument names."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m voxelmill_shared.events.schemas DIRECTORY\n")
        return 2
    directory = Path(arguments[0])
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in schema_files().items():
        (directory / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
