"""The page of the volume benchmark says what the judge said."""

from __future__ import annotations

from judged import Verdict
from volumes_page import Row, page


def row(name: str = "series", *, hostile: bool = False, volume: bool = True, **verdicts: Verdict) -> Row:
    remarks = dict.fromkeys(verdicts, "") | {"ours": "missing-slices: one | is missing"}
    return Row(name, 20, verdicts, remarks, hostile, volume)


def test_cells_tell_wrong_from_right_and_count_what_was_left_out():
    """A wrong reader that warned is marked."""
    one = row(
        ours=Verdict("right", 20, 20),
        part=Verdict("right", 19, 20),
        bad=Verdict("wrong", 0, 20, why="it lies elsewhere"),
    )
    one.remarks["bad"] = "odd"
    assert [one.cell(tool) for tool in ("ours", "part", "bad")] == ["right", "right, 19 of 20", "**wrong** !"]
    assert one.note("ours") == "bad: it lies elsewhere"


def test_our_own_refusal_is_the_note():
    """Without a bar, which would be a new cell."""
    assert (
        row(ours=Verdict("refused"), bad=Verdict("wrong", why="x")).note("ours") == "missing-slices: one / is missing"
    )


def test_sums_count_each_table_by_itself():
    """A series stands in one of the three tables."""
    rows = [
        row("first", ours=Verdict("right", 20, 20)),
        row("second", ours=Verdict("wrong"), hostile=True),
        row("third", ours=Verdict("refused"), volume=False),
    ]
    tables = page(rows, ["ours"]).split("## ")[1:]
    assert [name in text for text in tables for name in ("first", "second", "third")] == [
        *(True, False, False),
        *(False, True, False),
        *(False, False, True),
    ]
    assert ["| ours | 1 | 0 | 0 | 0 |" in text for text in tables] == [True, False, False]
