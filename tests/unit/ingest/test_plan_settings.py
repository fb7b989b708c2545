"""What ingest's settings make of the plan of every job."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from voxelmill_ingest.settings import IngestSettings
from voxelmill_shared.plan import ModelName, Plan, Resolution

DIGEST = "0123456789abcdef" * 4


def test_nothing_set_is_the_plan_that_it_always_was() -> None:
    """Standing jobs keep their names."""
    assert IngestSettings().plan() == Plan()


def test_the_environment_names_model_task_resolution_and_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the other parts of the plan are named."""
    for name, value in {
        "MODEL": "totalsegmentator",
        "TASK": "liver_segments",
        "RESOLUTION": "fast",
        "WEIGHTS_DIGEST": f"{DIGEST}+{DIGEST}",
    }.items():
        monkeypatch.setenv(f"VOXELMILL_{name}", value)
    plan = IngestSettings().plan()
    assert (plan.model, plan.task, plan.resolution) == (
        ModelName.TOTALSEGMENTATOR,
        "liver_segments",
        Resolution.FAST,
    )
    assert plan.weights_digest == f"{DIGEST}+{DIGEST}"
    assert plan.model_revision == "2.18.0"


def test_empty_variables_are_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files hand on what is not set as empty."""
    for name in ("TASK", "RESOLUTION", "WEIGHTS_DIGEST", "MAX_ERROR_MM"):
        monkeypatch.setenv(f"VOXELMILL_{name}", "")
    assert IngestSettings().plan() == Plan()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TASK", "total", "the model threshold has no tasks"),
        ("RESOLUTION", "coarse", "normal"),
        ("WEIGHTS_DIGEST", "abc", "pattern"),
    ],
)
def test_a_wrong_setting_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    """And not with the first series."""
    monkeypatch.setenv(f"VOXELMILL_{name}", value)
    with pytest.raises(ValidationError, match=said):
        IngestSettings()
