"""What a header claims costs nothing: memory follows the bytes that there are, measured in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MOST_MIB = 48
"""What refusing may take; the smallest of the claims is 256 MiB, the largest 80 TiB."""
TESTS = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """Run every case in one process, for its imports take a second."""
    folder = tmp_path_factory.mktemp("claims")
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", str(Path(__file__).with_name("decompression_cases.py")), str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent / "tools")])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return {line["case"]: line for line in map(json.loads, ended.stdout.splitlines())}


@pytest.mark.parametrize(
    ("case", "answer"),
    [
        ("ingest: 65535 x 65535 x 10000 frames in 64 bytes", "implausible-size"),
        ("ingest: the same as JPEG 2000", "implausible-size"),
        ("ingest: a NIfTI header of 32767 voxels in each direction", "nifti-corrupt"),
        ("image: 65535 x 65535 x 10000 frames in 64 bytes", "implausible-size"),
        ("image: the same as JPEG 2000", "implausible-size"),
        ("image: a JPEG 2000 stream of 4294967295 squared in a small image", "undecodable-pixels"),
        ("image: a JPEG stream of 65535 squared in a small image", "undecodable-pixels"),
        ("image: a deflated data set that inflates to 8 GiB", "implausible-size"),
        ("series: 65535 x 65535 x 10000 frames in 64 bytes", "implausible-size"),
        ("nifti: a header of 32767 voxels in each direction", "implausible-size"),
        ("nifti: gzip of a header alone that claims 256 MiB", "truncated-pixels"),
        ("thumbnail: 65535 x 65535 x 10000 frames in 64 bytes", "implausible-size"),
        ("zip: a member that inflates to 2 GiB", "archive-too-large"),
        ("zip: a member that claims to have 2 GiB and has none", "archive-corrupt"),
    ],
)
def test_a_claim_costs_nothing(outcomes: dict[str, dict[str, object]], case: str, answer: str) -> None:
    """It is refused with its reason, and the process has not grown by what was claimed."""
    outcome = outcomes[case]
    assert outcome["answer"] == answer
    assert isinstance(outcome["mib"], int)
    assert outcome["mib"] < MOST_MIB, f"{outcome['mib']} MiB"


def test_the_measure_sees_an_allocation(outcomes: dict[str, dict[str, object]]) -> None:
    """The last case takes 256 MiB on purpose: else no other one would have been measured."""
    assert outcomes["an allocation of 256 MiB"]["mib"] in range(200, 320)
