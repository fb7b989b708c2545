"""The parameters of a search (PS3.18 8.3.4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from voxelmill_gateway.dicomweb import attributes as names
from voxelmill_gateway.dicomweb import qido_queries as queries
from voxelmill_gateway.dicomweb.addresses import senseless
from voxelmill_gateway.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.datastructures import QueryParams

MOST_OFFSET: Final = 1 << 31
_MOST_PARAMETERS: Final = 100
_LONGEST: Final = 64 << 10
_ELSEWHERE: Final = frozenset({"accept", "charset", "emptyvaluematching", "limit", "multiplevaluematching", "offset"})
"""Parameters that are no attributes, and are read by others or change nothing."""


def query_of(parameters: QueryParams, level: str, path: Mapping[str, str]) -> tuple[queries.QidoQuery, list[str]]:
    """Read the parameters of a search.

    Parameters
    ----------
    parameters
        The request's.
    level
        `studies`, `series` or `instances`.
    path
        What the path says already: values by tag.

    Returns
    -------
    tuple
        What is asked for, and what of it is passed over, a line each.

    Raises
    ------
    Problem
        400 if a parameter makes no sense.
    """
    pairs = parameters.multi_items()
    if len(pairs) > _MOST_PARAMETERS or sum(len(value) for _, value in pairs) > _LONGEST:
        raise Problem(400, "Too much is asked for", "ask for fewer attributes, or in several requests")
    reader = _Reader(level, path)
    for name, value in pairs:
        reader.take(name, value)
    limit = _number(parameters, "limit", MOST_OFFSET)
    offset = _number(parameters, "offset", 0)
    filters = {**reader.filters, **{tag: (value,) for tag, value in path.items()}}
    return queries.QidoQuery(filters, frozenset(reader.include), reader.everything, limit, offset), reader.warnings


@dataclass(slots=True)
class _Reader:
    level: str
    path: Mapping[str, str]
    filters: dict[str, tuple[str, ...]] = field(default_factory=dict)
    include: set[str] = field(default_factory=set)
    everything: bool = False
    warnings: list[str] = field(default_factory=list)

    def take(self, name: str, value: str) -> None:
        match name.lower():
            case "includefield":
                self._fields([one.strip() for one in value.split(",") if one.strip()])
            case "fuzzymatching":
                self._fuzzy(value.lower())
            case lowered if lowered not in _ELSEWHERE:
                self._attribute(_tag(name), value)

    def _fields(self, fields: list[str]) -> None:
        self.everything = self.everything or "all" in fields
        self.include |= {_tag(one) for one in fields if one != "all"}

    def _fuzzy(self, value: str) -> None:
        if value not in {"true", "false"}:
            raise senseless("fuzzymatching", "it is true or false")
        if value == "true":  # the words of PS3.18 8.3.4.2
            line = "The fuzzymatching parameter is not supported. Only literal matching has been performed."
            self.warnings.append(line)

    def _attribute(self, tag: str, value: str) -> None:
        name = names.keyword_of(tag)
        if "\0" in value:
            raise senseless(name, "it holds a NUL")
        if tag in self.path:
            if value not in {"", self.path[tag]}:
                raise senseless(name, "the path names another")
        elif tag in _known(self.level):
            self.filters[tag] = (*self.filters.get(tag, ()), value)
        elif value.strip() not in {"", "*"}:
            self.warnings.append(f"The attribute {name} cannot be matched here and was passed over.")


def _known(level: str) -> frozenset[str]:
    known = queries.KNOWN_OF_STUDY | queries.KNOWN_OF_SERIES
    return known | queries.KNOWN_OF_INSTANCES if level == "instances" else known


def _tag(name: str) -> str:
    """Return the tag of an attribute by keyword or tag; of one within a sequence, the sequence's."""
    tag = names.tag_of(name.partition(".")[0])
    if tag is None:
        raise Problem(400, "No such attribute", "a parameter is neither known here nor a DICOM keyword or tag")
    return tag


def _number(parameters: QueryParams, name: str, default: int) -> int:
    text = parameters.get(name)
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()) or len(text) > 10 or int(text) > MOST_OFFSET:
        raise senseless(name, "it is a whole number, not negative")
    return int(text)
