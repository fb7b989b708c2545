"""Whose an object is, by its key alone, and whose rows a query may give."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import column, select

from voxelmill_shared.catalog import Scope
from voxelmill_shared.catalog.names import fold_name
from voxelmill_shared.projects import DEFAULT_PROJECT, is_project, project_of, project_prefix


@pytest.mark.parametrize(
    ("key", "project"),
    [
        ("projects/lungs/uploads/1/0.dcm", "lungs"),
        ("projects/a/x", "a"),
        ("projects/2026-trial/x", "2026-trial"),
        ("projects/default/x", "default"),
        ("study/1.dcm", DEFAULT_PROJECT),
        ("", DEFAULT_PROJECT),
        ("projects/lungs", DEFAULT_PROJECT),
        ("projects/lungs/", DEFAULT_PROJECT),
        ("projects//x", DEFAULT_PROJECT),
        ("projects/Lungs/x", DEFAULT_PROJECT),
        ("projects/-lungs/x", DEFAULT_PROJECT),
        ("projects/lungs-/x", DEFAULT_PROJECT),
        ("projects/lungs\n/x", DEFAULT_PROJECT),
        ("projects/../lungs/x", DEFAULT_PROJECT),
        (f"projects/{'a' * 64}/x", DEFAULT_PROJECT),
        ("archive/projects/lungs/x", DEFAULT_PROJECT),
        ("/projects/lungs/x", DEFAULT_PROJECT),
        ("Projects/lungs/x", DEFAULT_PROJECT),
    ],
)
def test_the_key_names_the_project(key: str, project: str) -> None:
    """Only the second part behind `projects/` does, if it can be a name; whatever is doubtful is default's."""
    assert project_of(key) == project


@settings(max_examples=30)
@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True))
def test_what_lies_under_a_projects_prefix_is_its_own(project: str) -> None:
    """Prefix and project are one to one."""
    assert is_project(project)
    assert project_of(f"{project_prefix(project)}uploads/1") == project


@pytest.mark.parametrize("name", ["", "A", "a/b", "..", "a" * 64, "a b", "ä", "a\n", "-"])
def test_what_is_no_name_has_no_prefix(name: str) -> None:
    """No text of a caller gets into a key unseen."""
    assert not is_project(name)
    with pytest.raises(ValueError, match="a project's name"):
        project_prefix(name)


def test_a_scope_is_a_condition_on_one_column() -> None:
    """All projects: the query as it is. Some: those. None at all: no row, never every row."""
    query = select(column("project"))
    assert Scope(None).over(query, column("project")) is query
    some = Scope(frozenset({"b", "a"})).over(query, column("project")).compile(compile_kwargs={"literal_binds": True})
    assert "IN ('a', 'b')" in str(some)
    none = Scope(frozenset()).over(query, column("project")).compile(compile_kwargs={"literal_binds": True})
    assert "WHERE project IN (SELECT 1 WHERE 1!=1)" in " ".join(str(none).split()) or "1 != 1" in str(none)
    assert Scope(None).holds("x")
    assert not Scope(frozenset({"a"})).holds("x")


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        ("Müller^Jörg^^^", "muller^jorg"),
        ("STRAẞE^A", "strasse^a"),
        ("  Doe ^ John ", "doe ^ john"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "yamada^tarou=山田^太郎=やまだ^たろう"),
        ("か", "か"),
        ("が", "が"),
        ("D?e*", "d?e*"),
        ("", ""),
    ],
)
def test_names_are_compared_without_case_and_accents(name: str, folded: str) -> None:
    """What is asked for and what is stored are folded alike; wildcards and the marks of kana stay."""
    assert fold_name(name) == folded
    assert fold_name(folded) == folded
