"""How the filer's stream and the reconciler are set, and how wrong settings are answered."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta

import pytest
from pydantic import ValidationError

from voxelmill_ingest.settings import IngestSettings
from voxelmill_ingest.triggers.settings import IngestProcessSettings


def test_a_process_reconciles_and_listens_to_nothing_by_default():
    """What no notification tells of is found in any case; a command that runs every service decides for itself."""
    settings = IngestProcessSettings()
    assert (settings.reconcile_seconds, settings.sources()) == (300, ())
    assert IngestSettings().reconcile_seconds == 0


def test_where_notifications_are_on_they_come_first():
    """The grace grows with the first source, unless it is given."""
    quiet = IngestProcessSettings(inbox_url="s3://in")
    told = IngestProcessSettings(inbox_url="s3://in", seaweedfs_filer="filer:18888")
    given = IngestProcessSettings(inbox_url="s3://in", seaweedfs_filer="filer:18888", reconcile_grace_seconds=0)
    assert [one.reconcile_grace() for one in (quiet, told, given)] == [
        timedelta(seconds=2),
        timedelta(minutes=2),
        timedelta(0),
    ]
    assert told.sources() == ("seaweedfs",)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"seaweedfs_filer": "filer"}, "write host:port"),
        ({"seaweedfs_filer": "http://filer:8888"}, "write host:port"),
        ({"seaweedfs_filer": "filer:18888", "inbox_url": "folder"}, "VOXELMILL_INBOX_URL is none"),
        ({"seaweedfs_filer_cert": __file__}, "set all three"),
        ({"seaweedfs_filer_cert": __file__, "seaweedfs_filer_key": __file__}, "set all three"),
        ({"seaweedfs_filer_ca": "nowhere.pem"}, "does not point to a file"),
    ],
)
def test_what_makes_no_sense_is_refused(values, said):
    """The line says what to write."""
    with pytest.raises(ValidationError, match=said):
        IngestProcessSettings(**{"inbox_url": "s3://in", **values})


def test_empty_variables_are_none():
    """Compose files hand on variables that are not set as empty ones."""
    settings = IngestProcessSettings(
        seaweedfs_filer="", seaweedfs_filer_ca="", seaweedfs_filer_cert="", seaweedfs_filer_key=""
    )
    assert settings.seaweedfs_filer_ca is None


def test_grpc_is_imported_only_for_a_filer():
    """An ingest without one does not pay its 20 MB."""
    code = "import sys, voxelmill_ingest.triggers.service; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, check=False).returncode == 0
