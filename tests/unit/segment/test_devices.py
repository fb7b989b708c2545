"""Which devices a worker computes on, read from one setting, without loading torch."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

import pytest
from pydantic import ValidationError

from voxelmill_segment import devices as module
from voxelmill_segment.devices import check_devices, devices, visible_gpus
from voxelmill_segment.equipment import Equipment
from voxelmill_segment.service import build
from voxelmill_segment.settings import SegmentSettings
from voxelmill_shared.child import Limits
from voxelmill_shared.parts import Parts, Scratch
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.storage.stores import Stores
from voxelmill_shared.transport.embedded import EmbeddedTransport


@pytest.mark.parametrize("value", ["auto", "cpu", "mps", "cuda", "cuda:0", "cuda:0,cuda:1", " CUDA:1 , cuda:0 "])
def test_devices_are_written_like_this(value):
    """Capitals and spaces do not matter."""
    assert check_devices(value) == value.replace(" ", "").lower()


@pytest.mark.parametrize("value", ["gpu", "cuda:", "cpu,cuda:0", "cuda:0,cuda:0", "", "cuda:0,"])
def test_what_names_no_device_is_a_wrong_setting(value):
    """One line that names the variable and says how to write it."""
    with pytest.raises(ValidationError, match=r"write auto|stands there twice"):
        SegmentSettings(segment_device=value)


@pytest.mark.parametrize(
    ("setting", "visible", "torch", "expected"),
    [
        ("auto", 0, "cuda", ("cpu", "cpu")),
        ("auto", 2, "cuda", ("cuda:0", "cuda:1")),
        ("auto", 2, "cpu", ("cpu", "cpu")),
        ("auto", 2, "", ("cpu", "cpu")),
        ("cuda", 2, "", ("cuda:0", "cuda:1")),
        ("cuda", 0, "", ("cuda:0",)),
        ("cuda:1,cuda:3", 0, "", ("cuda:1", "cuda:3")),
        ("mps", 0, "", ("mps",)),
        ("cpu", 2, "cuda", ("cpu", "cpu")),
    ],
)
def test_each_device_has_a_child(setting, visible, torch, expected, monkeypatch):
    """A GPU has one, a CPU as many as series are computed at a time; `auto` takes GPUs only where torch can use them."""
    monkeypatch.setattr(module, "visible_gpus", lambda: visible)
    monkeypatch.setattr(module, "_torch", lambda: torch)
    monkeypatch.setattr(sys, "platform", "linux")
    assert devices(setting, concurrency=2) == expected


@pytest.mark.parametrize(("value", "count"), [("", 0), ("0", 1), ("2,0", 2), ("0,-1,1", 1), ("-1", 0)])
def test_gpus_that_are_hidden_do_not_count(value, count, monkeypatch):
    """CUDA_VISIBLE_DEVICES rules, and what comes after -1 is hidden too."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus() == count


def test_a_child_reads_what_its_parent_says(monkeypatch, tmp_path):
    """The weights' folder is told as an absolute one: a child need not have the same working directory."""
    monkeypatch.chdir(tmp_path)
    told = Equipment(weights=tmp_path / "weights", device="cuda:1", licences="aca_0123456789ABCD")
    for name, value in Equipment(told.weights.relative_to(tmp_path), told.device, told.licences).environment().items():
        monkeypatch.setenv(name, value)
    assert Equipment.of_environment() == told


@pytest.fixture
def parts(tmp_path):
    stores = Stores(*(LocalStore(tmp_path / name, name) for name in ("inbox", "work", "results")))
    transport = EmbeddedTransport(tmp_path / "broker.db")
    return Parts(transport, stores, "", Scratch(tmp_path / "scratch"), Limits(1 << 30, 10))


@pytest.mark.parametrize(
    ("settings", "prefetch"),
    [
        ({"segment_device": "cpu"}, 2),
        ({"segment_device": "cpu", "segment_concurrency": 3}, 6),
        ({"segment_device": "cpu", "segment_ahead": 0}, 1),
        ({"segment_device": "cuda:0"}, 3),
        ({"segment_device": "cuda:0,cuda:1", "segment_ahead": 1}, 4),
    ],
)
def test_as_many_series_are_in_hand_as_the_pipeline_takes(parts, settings, prefetch):
    """More would wait here while another worker has nothing to do."""
    (subscription,) = build(parts, SegmentSettings(**settings)).subscriptions
    assert subscription.prefetch == prefetch


def test_a_spot_machine_has_no_grace(parts):
    """Whatever the settings of all services say."""
    assert build(parts, SegmentSettings(segment_spot=True)).grace == timedelta(0)
    assert build(parts, SegmentSettings()).grace is None


def test_the_service_itself_loads_no_heavy_library():
    """Its own process holds the broker's heartbeat; torch, numpy and the rest are the children's."""
    program = (
        "import sys, voxelmill_segment.service, voxelmill_segment.settings;"
        "print(*sorted({name.partition('.')[0] for name in sys.modules} & {'numpy', 'torch', 'pydicom', 'scipy'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == ""
