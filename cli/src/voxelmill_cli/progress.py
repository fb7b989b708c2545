"""What is going on, for people: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from voxelmill_cli.console import revealed, say
from voxelmill_shared.events import (
    JobProgressed,
    ObjectRejected,
    ObjectUploaded,
    ObjectValidated,
    SeriesEvent,
    SeriesIndexed,
    SeriesValidated,
    Severity,
    Stage,
    StageFailed,
    StageSkipped,
)
from voxelmill_shared.storage.keys import printable
from voxelmill_shared.worker import Progressed, Settled, Started

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Task

SHOWN = (Stage.THUMBNAIL, Stage.SEGMENT, Stage.MESH)
_SIGNS = {
    "waiting": ("·", "dim"),
    "running": ("…", "cyan"),
    "done": ("✓", "green"),
    "skipped": ("○", "yellow"),
    "failed": ("✗", "red"),
    "retry": ("↻", "magenta"),
}


STEP_SECONDS = 10.0
"""How often plain lines say what a stage is doing: what takes less time than this says nothing but its end."""


@dataclass(slots=True)
class SeriesState:
    """Where one series is. `steps` says what a running stage does, `predict 40 %`."""

    label: str
    stages: dict[Stage, str] = field(default_factory=lambda: dict.fromkeys(SHOWN, "waiting"))
    seconds: dict[Stage, float] = field(default_factory=dict)
    steps: dict[Stage, str] = field(default_factory=dict)
    indexed: bool = False


class Display(Protocol):
    """Shows the states; `line` is for what people must not miss."""

    def objects(self, settled: int, total: int) -> None:
        """Tell how many objects ingest has looked at; `total` is 0 where nobody knows it."""

    def series(self, uid: str, state: SeriesState) -> None:
        """Tell where a series is."""

    def line(self, text: str) -> None:
        """Print a line above the bars."""

    def worked(self, service: str, seconds: float) -> None:
        """Tell that a service has settled a message, and how long it took."""


class Tracker:
    """Follows the workers (it is their observer) and keeps what a display shows. `problems` are for the summary."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._states: dict[str, SeriesState] = {}
        self._announced = 0
        self._looked_at = 0
        self.activity = 0
        self.rejected: dict[str, ObjectRejected] = {}
        self.failed: list[StageFailed] = []
        self.jobs: dict[str, SeriesValidated] = {}
        self.validated: dict[str, ObjectValidated] = {}

    def announce(self, objects: int) -> None:
        """Tell how many objects were handed in."""
        self._announced = objects
        self._display.objects(self._looked_at, self._announced)

    def __call__(self, what: Started | Progressed | Settled) -> None:
        """Be told by a worker."""
        if isinstance(what, Progressed):
            self._progressed(what.event)
            return
        self.activity += 1
        if isinstance(what, Started):
            self._started(what)
        else:
            self._settled(what)

    def _state(self, event: SeriesEvent) -> SeriesState:
        state = self._states.get(event.series_instance_uid)
        if state is None:
            count = f" {event.instances} instances" if isinstance(event, SeriesValidated) else ""
            modality = event.modality if isinstance(event, SeriesValidated) else ""
            state = SeriesState(printable(f"{modality or 'series'}{count} …{event.series_instance_uid[-8:]}"))
            self._states[event.series_instance_uid] = state
        return state

    def _started(self, what: Started) -> None:
        event = what.event
        if isinstance(event, SeriesValidated):
            known = self.jobs.get(event.series_instance_uid)
            if known is None or known.revision <= event.revision:  # an older revision may be tried again meanwhile
                self.jobs[event.series_instance_uid] = event
        if what.service in SHOWN and isinstance(event, SeriesEvent):
            state = self._state(event)
            state.stages[Stage(what.service)] = "running"
            self._display.series(event.series_instance_uid, state)

    def _progressed(self, event: JobProgressed) -> None:
        if event.stage in SHOWN:
            state = self._state(event)
            counted = "" if event.percent is None else f" {event.percent} %"
            state.steps[event.stage] = printable(event.step + counted)
            self._display.series(event.series_instance_uid, state)

    def _settled(self, what: Settled) -> None:
        event = what.event
        self._display.worked(what.service, what.seconds)
        if (
            what.service == Stage.INGEST
            and isinstance(event, ObjectUploaded)
            and what.outcome not in {"retry", "waiting"}
        ):
            self._looked_at += 1
            self._display.objects(self._looked_at, max(self._announced, self._looked_at) if self._announced else 0)
        elif what.service == Stage.INDEX and what.outcome == "done":
            self._indexed(event)
        elif what.service in SHOWN and isinstance(event, SeriesEvent):
            state = self._state(event)
            stage = Stage(what.service)
            words = {"done": "done", "retry": "retry", "waiting": "retry", "rejected": "failed", "exhausted": "failed"}
            if state.stages[stage] != "skipped":
                state.stages[stage] = words.get(what.outcome, "waiting")
            state.seconds[stage] = what.seconds
            if what.outcome == "retry":
                self._display.line(
                    f"{state.label}: {stage}: attempt {what.attempt} failed, trying again: {revealed(what.reason)}"
                )
            self._display.series(event.series_instance_uid, state)

    def _indexed(self, event: object) -> None:
        if isinstance(event, ObjectValidated):
            self.validated[event.object.address()] = event
        elif isinstance(event, ObjectRejected):
            self.rejected[event.object.address()] = event
            if event.severity is Severity.REJECT:
                self._display.line(f"{event.object.key}: rejected: {revealed(event.detail)} ({event.reason})")
        elif isinstance(event, StageSkipped):
            state = self._state(event)
            state.stages[event.stage] = "skipped"
            if event.stage is Stage.SEGMENT:
                state.stages[Stage.MESH] = "skipped"
            self._display.series(event.series_instance_uid, state)
        elif isinstance(event, StageFailed):
            self.failed.append(event)
            self._display.line(
                f"{event.subject()}: {event.stage} failed: {revealed(event.reason)} ({event.error_class})"
            )
            known = self._states.get(event.series_instance_uid)
            if known is not None and event.stage in SHOWN:
                known.stages[event.stage] = "failed"
                if event.stage is Stage.SEGMENT:
                    known.stages[Stage.MESH] = "skipped"
                self._display.series(event.series_instance_uid, known)
        elif isinstance(event, SeriesIndexed):
            state = self._state(event)
            state.indexed = True
            self._display.series(event.series_instance_uid, state)


class _Stages(ProgressColumn):
    """`thumbnail ✓ 2.1 s · segment … · mesh ·`."""

    def render(self, task: Task) -> Text:
        text = Text()
        state: SeriesState | None = task.fields.get("state")
        if state is None:
            return Text(str(task.fields.get("note", "")))
        for stage, word in state.stages.items():
            sign, style = _SIGNS[word]
            seconds = f" {state.seconds[stage]:.1f} s" if stage in state.seconds and word == "done" else ""
            step = f" {state.steps[stage]}" if stage in state.steps and word == "running" else ""
            text.append(f"{stage} {sign}{seconds}{step}  ", style=style)
        return text


class Bars:
    """The display of a terminal."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            _Stages(),
            TimeElapsedColumn(),
            console=console,
        )
        self._objects: TaskID | None = None
        self._rows: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        self._objects = self._progress.add_task("objects", total=None, note="")
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def objects(self, settled: int, total: int) -> None:
        """Move the objects' bar."""
        if self._objects is not None:
            note = f"{settled}/{total} looked at" if total else f"{settled} looked at"
            self._progress.update(self._objects, completed=settled, total=total or None, note=note)

    def series(self, uid: str, state: SeriesState) -> None:
        """Move a series' bar."""
        if uid not in self._rows:
            self._rows[uid] = self._progress.add_task(state.label, total=len(SHOWN) + 1, state=state)
        settled = sum(word in {"done", "skipped", "failed"} for word in state.stages.values())
        self._progress.update(self._rows[uid], completed=settled + state.indexed, state=state)

    def line(self, text: str) -> None:
        """Print above the bars."""
        say(self._progress.console, text)

    def worked(self, service: str, seconds: float) -> None:
        """Show nothing: bars and stages tell it."""


class Lines:
    """The display of a pipe or a log: one plain line for each thing that comes to its end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[str, str] = {}
        self._next_count = 0.0
        self._next_step: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def objects(self, settled: int, total: int) -> None:
        """Print the count, at most once a second and at the end."""
        now = time.monotonic()
        if settled == total or now >= self._next_count:
            self._next_count = now + 1
            self.line(f"objects: {settled}/{total} looked at" if total else f"objects: {settled} looked at")

    def series(self, uid: str, state: SeriesState) -> None:
        """Print a series' stages when one of them has come to its end; between, what it does, but seldom."""
        ended = {stage: word for stage, word in state.stages.items() if word in {"done", "skipped", "failed"}}
        text = ", ".join(
            f"{stage} {word}"
            + (f" in {state.seconds[stage]:.1f} s" if word == "done" and stage in state.seconds else "")
            for stage, word in ended.items()
        )
        if text and state.indexed:
            text += ", indexed"
        if text and self._shown.get(uid) != text:
            self._shown[uid] = text
            self.line(f"{state.label}: {text}")
        elif now_at := ", ".join(
            f"{stage}: {state.steps[stage]}"
            for stage, word in state.stages.items()
            if word == "running" and stage in state.steps
        ):
            now = time.monotonic()
            if now >= self._next_step.setdefault(uid, now + STEP_SECONDS):
                self._next_step[uid] = now + STEP_SECONDS
                self.line(f"{state.label}: {now_at}")

    def line(self, text: str) -> None:
        """Print a line."""
        say(self._console, text)

    def worked(self, service: str, seconds: float) -> None:
        """Print nothing: what has come to its end is told by `series`."""


class Silent:
    """The display of `--json`: nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def objects(self, settled: int, total: int) -> None:
        """Show nothing."""

    def series(self, uid: str, state: SeriesState) -> None:
        """Show nothing."""

    def line(self, text: str) -> None:
        """Show nothing."""

    def worked(self, service: str, seconds: float) -> None:
        """Show nothing."""


def open_display(console: Console, *, json: bool) -> Bars | Lines | Silent:
    """Choose the display: none for `--json`, bars on a terminal, else lines."""
    if json:
        return Silent()
    return Bars(console) if console.is_terminal else Lines(console)
