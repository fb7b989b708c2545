"""The page of the volume benchmark says what the judge said."""

from __future__ import annotations

from judged import Verdict
from volumes_page import Row, page, without_truth


def row(
    name: str = "series",
    *,
    hostile: bool = False,
    volume: bool = True,
    left_out: tuple[str, ...] = (),
    **verdicts: Verdict,
) -> Row:
    remarks = dict.fromkeys(verdicts, "") | {"ours": "missing-slices: one | is missing"}
    return Row(name, 20, verdicts, remarks, hostile, volume, left_out)


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
    *tables, _ = page(rows, ["ours"]).split("## ")[1:]
    assert [name in text for text in tables for name in ("first", "second", "third")] == [
        *(True, False, False),
        *(False, True, False),
        *(False, False, True),
    ]
    assert ["| ours | 1 | 0 | 0 | 0 |" in text for text in tables] == [True, False, False]


def test_files_without_truth_are_counted_and_told_beside_the_frames():
    """What the referee left out is in no verdict; a volume of such a series is not proven right, whatever the rest is."""
    rows = [
        row("whole", ours=Verdict("right", 20, 20)),
        row("part", ours=Verdict("right", 20, 20), left_out=("in colour", "unreadable: ValueError", "in colour")),
        row("refused", ours=Verdict("refused"), left_out=("in colour",)),
        row("pixels of something else", ours=Verdict("unjudged")),
    ]
    assert without_truth(rows, "ours") == [
        ["in colour", "3", "2", "1"],
        ["unreadable: ValueError", "1", "1", "1"],
        ["in all, of 4 series", "4", "2", "2"],
    ]
    text = page(rows, ["ours"])
    assert "| part | 20 + 3 files | right |" in text
    assert "| refused | 20 + 1 file | refused |" in text
    assert "| whole | 20 | right |" in text
    assert "| in colour | 3 | 2 | 1 |" in text
