"""The alert rules name metrics that exist, and outcomes that are counted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from voxelmill_shared.metrics import REGISTRY

RULES = Path(__file__).parents[3] / "deploy" / "observability" / "alerts.yaml"


def rules():
    document = yaml.safe_load(RULES.read_text())
    return {rule["alert"]: rule for group in document["groups"] for rule in group["rules"]}


def exposed():
    """Every name under which a metric is scraped."""
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    return {family.name + ending for family in REGISTRY.collect() for ending in endings[family.type]}


@pytest.mark.parametrize("name", rules())
def test_every_metric_of_a_rule_exists(name):
    """A rule on a metric that nobody exposes never fires."""
    named = set(re.findall(r"voxelmill_\w+", rules()[name]["expr"]))
    assert named
    assert named <= exposed()


@pytest.mark.parametrize("name", rules())
def test_every_rule_says_what_to_do(name):
    """Who is woken reads what happened and where to look."""
    rule = rules()[name]
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]


def test_the_two_rules_of_the_inbox_are_there():
    """Lost notifications, and a reconciler that stands still."""
    assert {"VoxelmillNotificationsLost", "VoxelmillReconcilerStopped"} <= rules().keys()
