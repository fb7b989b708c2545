"""What people see while a run goes on."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from voxelmill_cli.progress import Bars, Lines, SeriesState, Silent, Tracker, open_display
from voxelmill_shared.events import (
    DocumentRef,
    JobProgressed,
    ObjectRef,
    ObjectRejected,
    ObjectUploaded,
    SeriesValidated,
    Severity,
    Stage,
    StageFailed,
    StageSkipped,
)
from voxelmill_shared.plan import Plan
from voxelmill_shared.worker import Progressed, Settled, Started

REFERENCE = ObjectRef(bucket="inbox", key="a[/b].dcm", etag="e", size=1)


def validated(revision=1):
    return SeriesValidated(
        study_instance_uid="1.2",
        series_instance_uid="1.2.3.4.5.6.7",
        revision=revision,
        job_id=f"job-{revision}",
        modality="[/b]",
        instances=3,
        manifest=DocumentRef(key="k", sha256="0" * 64),
        plan=Plan(),
        evidence="upload",
    )


def settled(service, event, outcome="done", reason=""):
    return Settled(service, "queue", None, event, outcome, reason, 1, 0.5)


@pytest.mark.parametrize("kind", [Bars, Lines])
def test_whatever_a_file_says_is_shown_as_it_is(kind):
    """Brackets in a modality, a name or a reason are no markup."""
    text = io.StringIO()
    with kind(Console(file=text, force_terminal=kind is Bars, width=200)) as display:
        tracker = Tracker(display)
        tracker.announce(1)
        tracker(settled("ingest", ObjectUploaded(object=REFERENCE, found_by="command")))
        tracker(Started("thumbnail", validated(), 1))
        tracker(settled("thumbnail", validated()))
        tracker(settled("segment", validated(), "retry", "no [/x] room"))
        rejected = ObjectRejected(object=REFERENCE, severity=Severity.REJECT, reason="truncated", detail="cut [/i]")
        tracker(settled("index", rejected))
    assert "[/b]" in text.getvalue()
    assert "cut [/i]" in text.getvalue()
    assert "no [/x] room" in text.getvalue()


def progressed(done):
    return Progressed(
        "segment",
        JobProgressed(
            study_instance_uid="1.2",
            series_instance_uid="1.2.3.4.5.6.7",
            revision=1,
            job_id="job-1",
            stage=Stage.SEGMENT,
            step="predict",
            done=done,
            total=8,
            percent=100 * done // 8,
        ),
    )


@pytest.mark.parametrize(("kind", "lines"), [(Bars, "segment … predict 50 %"), (Lines, "segment: predict 25 %")])
def test_a_running_stage_says_how_far_it_is(kind, lines, monkeypatch):
    """On a terminal always, in a log now and then."""
    monkeypatch.setattr("voxelmill_cli.progress.STEP_SECONDS", 0)
    text = io.StringIO()
    with kind(Console(file=text, force_terminal=kind is Bars, width=200)) as display:
        tracker = Tracker(display)
        tracker(Started("segment", validated(), 1))
        tracker(progressed(2))
        quiet = tracker.activity
        tracker(progressed(4))
        assert tracker.activity == quiet  # no message has moved
    assert lines in text.getvalue()


def test_a_log_says_nothing_of_what_is_soon_done():
    """Progress lines come every ten seconds: the end of a stage tells enough of a short one."""
    text = io.StringIO()
    with Lines(Console(file=text, width=200)) as display:
        tracker = Tracker(display)
        tracker(Started("segment", validated(), 1))
        for done in range(8):
            tracker(progressed(done))
    assert "predict" not in text.getvalue()


def test_the_newest_revision_of_a_series_counts():
    """An older revision that is tried again does not take its place."""
    tracker = Tracker(Silent())
    for revision in (1, 2, 1):
        tracker(Started("segment", validated(revision), 1))
    assert tracker.jobs["1.2.3.4.5.6.7"].job_id == "job-2"


def test_skipped_and_failed_stages_reach_the_display():
    """A skipped or failed segmentation has no mesh; a failure is listed."""
    seen = {}

    class Seen(Silent):
        def series(self, uid: str, state: SeriesState) -> None:
            seen.update(state.stages)

    about = {"study_instance_uid": "1.2", "series_instance_uid": "1.2.3.4.5.6.7", "revision": 1, "job_id": "j"}
    tracker = Tracker(Seen())
    tracker(Started("segment", validated(), 1))
    tracker(settled("index", StageSkipped(**about, stage=Stage.SEGMENT, reason="for CT")))
    assert seen == {Stage.THUMBNAIL: "waiting", Stage.SEGMENT: "skipped", Stage.MESH: "skipped"}
    failure = StageFailed(
        **about, stage=Stage.THUMBNAIL, queue="q", error_class="child-died", reason="killed", attempts=3
    )
    tracker(settled("index", failure))
    assert seen[Stage.THUMBNAIL] == "failed"
    assert tracker.failed == [failure]


def test_the_display_fits_where_it_is_shown():
    """Bars on a terminal, lines in a pipe, nothing for `--json`."""
    assert isinstance(open_display(Console(file=io.StringIO(), force_terminal=True), json=False), Bars)
    assert isinstance(open_display(Console(file=io.StringIO()), json=False), Lines)
    assert isinstance(open_display(Console(file=io.StringIO(), force_terminal=True), json=True), Silent)
