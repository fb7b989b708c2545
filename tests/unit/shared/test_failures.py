"""Every error class that the code can say stands in the table, and nothing else does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from voxelmill_shared.failures import FAILURES, Failure, Kind, advice, page
from voxelmill_shared.imaging.reasons import Unsupported

ROOT = Path(__file__).parents[3]
SOURCES = sorted(path for folder in ("shared/src", "services") for path in (ROOT / folder).rglob("*.py"))
POSITION = {"Retry": 1, "Reject": 1, "UnsupportedSeriesError": 0, "ChildFailedError": 0}
"""Where the word stands among the arguments of what carries one."""
OF_THE_CHILD = re.compile(r"child-[a-z-]+")
BY_THE_BROKER = {"delivery-limit"}
"""RabbitMQ's own reason for a dead letter, which stands nowhere in the code."""


def literal(value: ast.expr | None) -> set[str]:
    return {value.value} if isinstance(value, ast.Constant) and isinstance(value.value, str) else set()


def of_class(node: ast.ClassDef) -> set[str]:
    """Find the class attribute of an error, and the default of an answer."""
    values = [
        one.value
        for one in node.body
        if (isinstance(one, ast.Assign) and [ast.unparse(target) for target in one.targets] == ["error_class"])
        or (isinstance(one, ast.AnnAssign) and ast.unparse(one.target) == "error_class")
    ]
    return set().union(*map(literal, values))


def of_call(node: ast.Call) -> set[str]:
    """Find what an answer or an error is given."""
    position = POSITION.get(ast.unparse(node.func).rpartition(".")[2], len(node.args))
    values = [*node.args[position : position + 1], *(one.value for one in node.keywords if one.arg == "error_class")]
    return set().union(*map(literal, values))


def of_headers(node: ast.Dict) -> set[str]:
    """Find what a dead letter's header is set to."""
    named = [
        value
        for key, value in zip(node.keys, node.values, strict=True)
        if key is not None and ast.unparse(key).endswith("HEADER_ERROR_CLASS")
    ]
    return set().union(*map(literal, named))


def words(tree: ast.AST, path: Path) -> set[str]:
    """Find the error classes that a module says."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef():
                found |= of_class(node)
            case ast.Call():
                found |= of_call(node)
            case ast.Dict():
                found |= of_headers(node)
            case ast.Constant(value=str(text)) if path.name.startswith("child") and OF_THE_CHILD.fullmatch(text):
                found.add(text)
    return found - {""}  # the default of a row in the catalogue


SAID = {path: words(ast.parse(path.read_text()), path) for path in SOURCES}
ALL = set().union(*SAID.values()) | {one.value for one in Unsupported} | BY_THE_BROKER | {"unsafe-key"}


def test_every_word_that_is_said_is_explained() -> None:
    """Whoever adds an error class adds what the operator does about it."""
    assert {one.error_class for one in FAILURES} >= ALL, ALL - {one.error_class for one in FAILURES}


def test_no_word_is_explained_that_nobody_says() -> None:
    """What is left over would be looked for in vain."""
    assert {one.error_class for one in FAILURES} <= ALL, {one.error_class for one in FAILURES} - ALL


def test_words_are_found_where_they_are_known_to_stand() -> None:
    """The search itself: one of each way in which a word is written."""
    assert {"store-unavailable", "undecodable", "unknown-bucket", "child-died", "segments-invalid", "unexpected"} <= ALL


@pytest.mark.parametrize("one", FAILURES, ids=lambda one: one.error_class)
def test_each_says_what_to_do(one: Failure) -> None:
    """A sentence for what happened and one for the operator; one entry for each word."""
    assert advice(one.error_class) is one
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", one.error_class)
    assert one.meaning.endswith(".")
    assert one.advice.endswith(".")
    assert one.ladder


def test_a_word_of_another_version_has_no_advice() -> None:
    """`dlq show` then says the reason alone."""
    assert advice("of-tomorrow") is None


def test_the_imaging_codes_are_explained_in_their_own_words() -> None:
    """The catalogue of imaging and this table say the same."""
    assert {one.value: one.explanation for one in Unsupported} == {
        one.error_class: one.meaning for one in FAILURES if one.error_class in set(Unsupported)
    }


def test_a_wait_is_what_the_runtime_waits_for() -> None:
    """The classes that spend no attempt are those of the circuits, and of a worker that is not equipped."""
    from voxelmill_shared import errors

    waited = (
        errors.StoreUnavailableError,
        errors.DatabaseUnavailableError,
        errors.BrokerUnavailableError,
        errors.DiskFullError,
    )
    assert {one.error_class for one in FAILURES if one.kind is Kind.WAIT} == {
        *(kind.error_class for kind in waited),
        "not-equipped",
    }


def test_the_page_holds_the_table_as_it_is() -> None:
    """It is made with `python -m voxelmill_shared.failures > docs/failures.md`."""
    assert (ROOT / "docs" / "failures.md").read_text() == page()


@pytest.mark.parametrize("service", ["index", "ingest", "mesh", "segment", "thumbnail"])
def test_the_page_of_each_service_lists_its_own(service: str) -> None:
    """What a service's own code says stands in its README and in the table under its name; the README has no others."""
    section = (ROOT / "services" / service / "README.md").read_text().partition("\n## Error classes\n")[2]
    listed = set(re.findall(r"`([a-z]+(?:-[a-z]+)+|undecodable|unexpected)`", section.partition("\n## ")[0]))
    its_own = {one.error_class for one in FAILURES if service in one.services}
    assert its_own <= listed, its_own - listed
    assert listed <= {one.error_class for one in FAILURES}
    said = set().union(*(found for path, found in SAID.items() if path.is_relative_to(ROOT / "services" / service)))
    assert said <= {one.error_class for one in FAILURES if not one.services or service in one.services}
