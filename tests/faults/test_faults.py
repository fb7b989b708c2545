"""Some faults, applied once each to real processes at a moment that is drawn anew each time. `make faults` does it all."""

from __future__ import annotations

import random

import pytest

from faults.catalogue import FAULTS
from faults.harness import run_once, settle
from faults.installation import Installation, MissingError
from faults.invariant import Judge
from faults.made import make_work
from faults.store import RESULTS

pytestmark = [pytest.mark.faults, pytest.mark.rabbitmq, pytest.mark.s3, pytest.mark.postgresql]

KINDS = (
    ("kill-ingest", "kill-thumbnail", "kill-segment", "kill-mesh", "kill-index"),
    ("term-ingest", "term-thumbnail", "term-segment", "term-mesh", "term-index"),
    ("kill-rabbitmq", "kill-postgresql", "kill-seaweedfs"),
    ("broker-stopped", "store-fails"),
    ("late-slice", "overwritten", "undecodable"),
    ("child-oom", "child-segv"),
)
OUTAGE_SECONDS = 3.0


@pytest.fixture(scope="module")
def installation(rabbitmq_installed, tmp_path_factory):
    """Give an installation of its own: its servers are killed."""
    from conftest import missing

    try:
        with Installation(tmp_path_factory.mktemp("faults")) as running:
            yield running
    except MissingError as error:
        missing(str(error))


@pytest.mark.timeout(600)
def test_faults_lose_nothing_and_repeat_nothing(installation, seed):
    """One fault of each kind: every object and revision comes to its end, every artefact stands, nothing is there twice.

    Whatever was drawn stands in the output of a failure. All in one test: the installation takes as long to start as a
    fault.
    """
    drawn = random.Random(seed)
    ended = []
    for kind in KINDS:
        ended.append(run_once(installation, FAULTS[drawn.choice(kind)], seed, outage=OUTAGE_SECONDS, series=1))
        print(ended[-1].line())
    assert [one.line() for one in ended if not one.is_good] == []
    _the_judge_sees_what_is_wrong(installation, seed)


def _the_judge_sees_what_is_wrong(installation, seed):
    """What the faults are held to can fail: an artefact taken away is lost, a record written again is a stage twice."""
    work = make_work(random.Random(seed), f"judged-{seed}", series=1)
    installation.store.put(work.objects())
    judge = Judge(installation, work)
    assert settle(installation, judge) == []
    installation.broker.drain_tap()
    verdict = judge.judge()
    assert (verdict.lost, verdict.duplicated) == ([], [])
    prefix = f"{work.series[0].uid}/"
    keys = list(installation.store.listed(RESULTS, prefix))
    label_map = next(key for key in keys if key.endswith("labelmap.nii.gz"))
    record = next(key for key in keys if key.endswith("stages/segment.json"))
    body = installation.store.read(RESULTS, record)
    installation.store.delete(RESULTS, [label_map])
    installation.store.client.put_object(Bucket=RESULTS, Key=record, Body=body)
    installation.writes.wait_for(record, 2)
    verdict = judge.judge()
    assert [line.split(": ")[1] for line in verdict.lost] == [
        "segmentation/labelmap.nii.gz is not there with the digest of its receipt"
    ]
    assert verdict.duplicated == [f"{record}: the stage was computed 2 times"]
