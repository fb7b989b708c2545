"""Rules that are asked once for the values that the objects of a series share."""

from __future__ import annotations

from voxelmill_ingest.elements import Elements
from voxelmill_ingest.tags import COLUMNS, ROWS
from voxelmill_ingest.values import asked_once, number


def test_a_rule_is_asked_once_for_equal_values_and_again_for_others() -> None:
    asked = []

    @asked_once(ROWS)
    def rule(found: Elements, factor: int) -> int:
        asked.append(found)
        return (number(found, ROWS) or 0) * factor

    rows = {ROWS: b"\4\0"}
    assert [rule(Elements(values=dict(rows)), 2) for _ in range(3)] == [8, 8, 8]
    assert len(asked) == 1
    assert rule(Elements(values=rows), 3) == 12
    assert rule(Elements(values={ROWS: b"\5\0"}), 2) == 10
    assert rule(Elements(values={}), 2) == 0
    assert rule(Elements(values=rows, big_endian=True), 2) == 2048
    assert rule(Elements(values={ROWS: b"4 "}, vrs={ROWS: b"IS"}), 2) == 8
    assert len(asked) == 6


def test_a_rule_sees_only_the_values_that_it_names() -> None:
    """Otherwise what it says of one object would be said of others."""

    @asked_once(ROWS)
    def rule(found: Elements) -> set[int]:
        return set(found.values)

    assert rule(Elements(values={ROWS: b"\4\0", COLUMNS: b"\4\0"})) == {ROWS}
