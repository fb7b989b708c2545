"""The description of the interface (OpenAPI 3.1): FastAPI's, with the answers that are problems as they really are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from voxelmill_gateway.problems import MEDIA_TYPE

if TYPE_CHECKING:
    from fastapi import FastAPI

PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "title": "Problem",
    "description": "Problem details (RFC 9457).",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "description": "names the kind of problem"},
        "title": {"type": "string", "description": "what is wrong"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "this case: object, reason, next step"},
        "errors": {
            "type": "array",
            "items": {"type": "object", "properties": {"in": {"type": "string"}, "reason": {"type": "string"}}},
        },
    },
}
_OF_CALLERS: Final = {
    "401": "nobody has said who calls, or not so that it is believed",
    "403": "the caller may not do this",
    "429": "too many requests; Retry-After says when to come again",
}
_OF_ALL: Final = {
    "422": "the request is not as this document says",
    "503": "a dependency is out of reach; Retry-After says when to come again",
    "default": "any other problem",
}
_FRAMEWORKS: Final = ("HTTPValidationError", "ValidationError")
"""How FastAPI would answer what is not as the interface says; we do not."""


def install(app: FastAPI) -> None:
    """Let an application describe itself so."""
    made = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = with_problems(made())
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's documented way to extend the description


def with_problems(document: dict[str, Any]) -> dict[str, Any]:
    """Add to every operation the problems that it may answer with, and take out those that it never does."""
    for path, operations in document["paths"].items():
        for operation in operations.values():
            answers: dict[str, Any] = operation["responses"]
            expected = dict(_OF_ALL)
            if operation.get("security"):
                expected |= _OF_CALLERS
            if "{" in path:
                expected["404"] = "there is no such thing that the caller may see"
            if "requestBody" in operation:
                expected["413"] = "the body is larger than is taken"
            answers.pop("422", None)
            for status, description in expected.items():
                answers.setdefault(status, {"description": description})
            for status, answer in answers.items():
                if status == "default" or (status.startswith(("4", "5")) and not answer.get("content")):
                    answer["content"] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in _FRAMEWORKS:
        schemas.pop(name, None)
    schemas["Problem"] = PROBLEM
    return document
