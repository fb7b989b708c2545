"""The plan and the name of a job; the keys and documents of results."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from voxelmill_shared.events import Stage
from voxelmill_shared.plan import _ADDED_LATER, MeshFormat, ModelName, Organ, Plan, Quality, Resolution
from voxelmill_shared.results import Receipt, ResultKeys, StageRecord, StageSummary

CONTENTS = st.lists(st.text(min_size=1), min_size=1)


@given(contents=CONTENTS, data=st.data())
def test_job_does_not_depend_on_the_order_of_instances(contents: list[str], data: st.DataObject) -> None:
    """The same instances in another order are the same job."""
    shuffled = data.draw(st.permutations(contents))
    assert Plan().job_id(contents) == Plan().job_id(shuffled)


def test_job_does_not_depend_on_the_order_of_formats() -> None:
    """The formats are a set: asking for PLY and STL is asking for STL and PLY."""
    one = Plan(formats=(MeshFormat.STL, MeshFormat.PLY))
    other = Plan(formats=(MeshFormat.PLY, MeshFormat.STL))
    assert one.job_id(["a"]) == other.job_id(["a"])


@pytest.mark.parametrize(
    "plan",
    [
        Plan(model=ModelName.TOTALSEGMENTATOR),
        Plan(model_revision="2"),
        Plan(weights_digest="0" * 64),
        Plan(organ=Organ.LUNGS),
        Plan(quality=Quality.HIGH),
        Plan(reduction_percent=50),
        Plan(max_error_mm=0.5),
        Plan(formats=(MeshFormat.STL,)),
        Plan(task="lung_vessels"),
        Plan(resolution=Resolution.NORMAL),
    ],
    ids=lambda plan: next(iter(plan.model_fields_set)),
)
def test_every_parameter_makes_another_job(plan: Plan) -> None:
    """No parameter is forgotten by the content key."""
    assert plan.job_id(["a"]) != Plan().job_id(["a"])


def test_every_instance_makes_another_job() -> None:
    """One more instance, or one replaced, is another job; so is one of two equal instances gone."""
    plan = Plan()
    assert len({plan.job_id(contents) for contents in (["a"], ["a", "b"], ["a", "c"], ["a", "a"])}) == 4


def test_job_names_are_stable_between_releases() -> None:
    """The name of this job was computed once: if it changes, every result of every user is computed again."""
    assert Plan().job_id(["etag-1:100", "etag-2:200"]) == "99f69264cbde555ddb06b061"


def test_every_field_of_a_plan_is_in_its_name_or_was_added_later() -> None:
    """A field whose default is in the key changes the name of every standing job."""
    given = set(Plan().model_dump())
    named = {"model", "model_revision", "weights_digest", "organ", "quality", "reduction_percent", "formats"}
    assert given - named == set(_ADDED_LATER)


@pytest.mark.parametrize(
    ("plan", "subject"),
    [
        (Plan(organ=Organ.LUNGS), "lungs"),
        (Plan(task="lung_vessels"), "lung_vessels"),
        (Plan(task="lung_vessels", organ=Organ.AIRWAYS), "lung_vessels_airways"),
    ],
)
def test_results_are_called_after_what_was_asked_for(plan: Plan, subject: str) -> None:
    """Two tasks of one series do not land in one folder."""
    assert plan.subject == subject


@pytest.mark.parametrize("task", ["../x", "a b", "x" * 65])
def test_a_task_is_a_plain_name(task: str) -> None:
    """It becomes part of a folder's name."""
    with pytest.raises(ValidationError):
        Plan(task=task)


@pytest.mark.parametrize("percent", [-1, 100])
def test_reduction_is_a_percentage_that_leaves_something(percent: int) -> None:
    """A mesh cannot be reduced by all of it."""
    with pytest.raises(ValidationError):
        Plan(reduction_percent=percent)


def test_plan_ignores_what_a_newer_version_added() -> None:
    """An event of a newer version can be read."""
    assert Plan.model_validate({"organ": "lungs", "colour": "red"}) == Plan(organ=Organ.LUNGS)


def test_result_keys_lie_under_series_revision_and_job() -> None:
    """The layout is the documented one."""
    keys = ResultKeys("1.2.3", 4, "abc")
    assert keys.receipt == "1.2.3/r4/abc/receipt.json"
    assert keys.manifest == "1.2.3/r4/abc/manifest.json"
    assert keys.label_map == "1.2.3/r4/abc/segmentation/labelmap.nii.gz"
    assert keys.stage_record(Stage.MESH) == "1.2.3/r4/abc/stages/mesh.json"
    assert keys.artefact("meshes/lung_left.stl") == "1.2.3/r4/abc/meshes/lung_left.stl"
    assert keys.prefix.startswith(keys.revision_prefix)


def test_documents_read_back_as_they_were_written() -> None:
    """A record survives JSON, times with their zone, and ends with a line break."""
    record = StageRecord(
        stage=Stage.MESH,
        service_version="1",
        started="2026-01-02T03:04:05.678901Z",
        finished="2026-01-02T03:04:06Z",
        seconds={"domain": 0.25},
        artefacts=(),
        measurements={"transform": [[1, 0], [0, 1]]},
    )
    body = record.to_json()
    assert body.endswith(b"}\n")
    assert StageRecord.model_validate_json(body) == record


def test_summary_of_a_stage_needs_no_times() -> None:
    """A stage that was skipped has an outcome and a reason, nothing else."""
    assert StageSummary(outcome="skipped", reason="not a CT").started is None
    assert Receipt.model_fields["stages"].is_required()
