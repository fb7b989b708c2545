"""Table E.1-1 of PS3.15: what is done to each attribute.

The tables beside this module hold facts of the Standard, edition 2026d: `profile.tsv` is Table E.1-1 with all of its
columns, `types.tsv` are the Types (PS3.5 7.4) of those attributes whose action depends on them, as PS3.3 has them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

EDITION: Final = "2026d"
_IMAGE_CLASSES: Final = "1.2.840.10008.5.1.4.1.1."


class Action(StrEnum):
    """What is done to one element (PS3.15 Table E.1-1a)."""

    DUMMY = "D"
    EMPTY = "Z"
    REMOVE = "X"
    KEEP = "K"
    CLEAN = "C"
    UID = "U"


class Option(StrEnum):
    """An option of the profile that is built here, by the name that the setting and the table have for it."""

    DATES = "dates"
    DESCRIPTORS = "descriptors"
    DEVICE = "device"
    PRIVATE = "private"

    @property
    def code(self) -> tuple[str, str]:
        """Code value and meaning for De-identification Method Code Sequence (PS3.16 CID 7050)."""
        return {
            Option.DATES: ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
            Option.DESCRIPTORS: ("113105", "Clean Descriptors Option"),
            Option.DEVICE: ("113109", "Retain Device Identity Option"),
            Option.PRIVATE: ("113111", "Retain Safe Private Option"),
        }[self]


BASIC_CODE: Final = ("113100", "Basic Application Confidentiality Profile")

_BY_TYPE: Final[dict[str, dict[str, Action]]] = {
    "Z/D": {"1": Action.DUMMY, "2": Action.EMPTY, "3": Action.EMPTY},
    "X/Z": {"1": Action.EMPTY, "2": Action.EMPTY, "3": Action.REMOVE},
    "X/D": {"1": Action.DUMMY, "2": Action.DUMMY, "3": Action.REMOVE},
    "X/Z/D": {"1": Action.DUMMY, "2": Action.EMPTY, "3": Action.REMOVE},
    "X/Z/U*": {"1": Action.UID, "2": Action.EMPTY, "3": Action.REMOVE},
}
"""What an action that depends on the attribute's Type comes to. An X/D attribute of Type 2 is given a dummy, which an
empty value would be allowed for as well, so that one rule holds for every IOD."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of Table E.1-1.

    `options` holds the action under each option of the Standard that has one for this attribute, whether or not the
    option is built here.
    """

    tag: str
    name: str
    basic: str
    options: Mapping[str, Action] = field(default_factory=dict)

    def action(self, chosen: frozenset[Option], attribute_type: str) -> Action:
        """Return what is done under the chosen options where the attribute is of a Type (`1`, `2` or `3`)."""
        actions = {self.options[option] for option in chosen if option in self.options}
        if actions:
            # Where one option keeps and another cleans, cleaning says less (PS3.15 E.3: the options are cumulative).
            return Action.CLEAN if Action.CLEAN in actions else Action.KEEP
        return self.without_options(attribute_type)

    def without_options(self, attribute_type: str) -> Action:
        """Return what the basic profile does where the attribute is of a Type (`1`, `2` or `3`)."""
        by_type = _BY_TYPE.get(self.basic)
        return Action(self.basic) if by_type is None else by_type[attribute_type]

    @property
    def depends_on_type(self) -> bool:
        """Whether the basic profile's action is one for some IODs and another one for others."""
        return self.basic in _BY_TYPE


@cache
def rows() -> Mapping[str, Row]:
    """Return all rows by what the Standard writes for a tag: eight hexadecimal digits, `50xxxxxx`, `PRIVATE`."""
    found = {}
    for tag, basic, options, name in _lines("profile.tsv"):
        under = dict(one.split("=") for one in options.split())
        found[tag] = Row(tag, name, basic, {option: Action(action) for option, action in under.items()})
    return found


def row_of(tag: int) -> Row | None:
    """Return the row that an attribute falls under, or None if the table has none for it."""
    group = tag >> 16
    if group & 1:
        return rows()["PRIVATE"]
    if group >> 8 == 0x50:
        return rows()["50xxxxxx"]
    if group >> 8 == 0x60 and tag & 0xFFFF in {0x3000, 0x4000}:
        return rows()[f"60xx{tag & 0xFFFF:04X}"]
    return rows().get(f"{tag:08X}")


@dataclass(frozen=True, slots=True)
class _Types:
    strongest: str
    first: frozenset[str]
    second: frozenset[str]


@cache
def _types() -> tuple[frozenset[str], Mapping[tuple[str, str], _Types]]:
    classes: frozenset[str] = frozenset()
    found = {}
    for fields in _lines("types.tsv"):
        if fields[0] == "classes":
            classes = frozenset(_IMAGE_CLASSES + one for one in fields[1].split())
            continue
        tag, place, strongest, first, second = fields
        found[tag, "" if place == "-" else place] = _Types(strongest, _classes(first), _classes(second))
    return classes, found


def _classes(cell: str) -> frozenset[str]:
    return frozenset(_IMAGE_CLASSES + one for one in cell[2:].split())


def type_of(tag: int, sop_class_uid: str, sequence: str = "") -> str:
    """Return an attribute's Type in an IOD: `1`, `2` or `3`; conditional ones (1C, 2C) count as required.

    Parameters
    ----------
    tag
        An attribute whose action depends on it.
    sop_class_uid
        The object's SOP class. For one that is no known image the strongest Type of any IOD is returned, so that the
        copy is in order whatever it is.
    sequence
        The keyword of the sequence that the attribute stands in; empty at the top of the data set.
    """
    classes, found = _types()
    types = found.get((f"{tag:08X}", sequence))
    if types is None:
        return "3"
    if sop_class_uid not in classes:
        return types.strongest
    if sop_class_uid in types.first:
        return "1"
    return "2" if sop_class_uid in types.second else "3"


def _lines(name: str) -> Iterator[list[str]]:
    text = (resources.files(__package__) / name).read_text()
    for line in text.splitlines():
        if not line.startswith("#"):
            yield line.split("\t")
