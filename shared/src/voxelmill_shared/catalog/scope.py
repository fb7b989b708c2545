"""Whose rows a query may give: the one place where projects are told apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Select


@dataclass(frozen=True, slots=True)
class Scope:
    """The projects whose rows somebody may see. None: all of them, and rows of which the project is not known yet."""

    projects: frozenset[str] | None

    def over(self, query: Select[Any], project: ColumnElement[str]) -> Select[Any]:
        """Return the query with only the rows of these projects; `project` is the column that names it.

        A scope without projects gives no rows.
        """
        return query if self.projects is None else query.where(project.in_(sorted(self.projects)))

    def holds(self, project: str) -> bool:
        """Whether rows of a project may be seen."""
        return self.projects is None or project in self.projects


EVERYTHING: Final = Scope(None)
"""For the operator's own command, which reads the database itself."""
