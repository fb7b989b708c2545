"""What is left out of log lines, audit records and dead letters: keys, and what libraries quote out of files."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING

import pytest
import structlog

from voxelmill_shared import logs, privacy
from voxelmill_shared.errors import ObjectMissingError
from voxelmill_shared.storage.local import LocalStore

if TYPE_CHECKING:
    from pathlib import Path

KEY = "DOE^JOHN 1970/Scan of Jane/IM_1.dcm"
DIGEST = privacy.object_digest(f"inbox/{KEY}")


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every test a process that has used no key yet."""
    monkeypatch.setattr(privacy, "_recent", {})


def test_a_digest_is_of_the_key_alone() -> None:
    """An operator can compute it: the bucket, and 16 digits of what `sha256sum` says of the key."""
    said = subprocess.run(["sha256sum"], input=KEY.encode(), capture_output=True, check=True).stdout.decode()
    assert f"inbox#{said[:16]}" == DIGEST
    assert privacy.object_digest("1.2.3") == "1.2.3"
    assert privacy.object_digest("work/caf\udce9").startswith("work#")


@pytest.mark.parametrize(
    "text",
    [
        f"{KEY}: no such object",
        f"inbox/{KEY}: replaced since it was validated",
        f"/data/inbox/{KEY}: Permission denied",
        "[Errno 13] Permission denied: '/data/inbox/DOE^JOHN 1970/Scan of Jane'",
        "GET https://s3.example/bucket/DOE%5EJOHN%201970/Scan%20of%20Jane/IM_1.dcm: 503",
        "IM_1.dcm: it has no pixels",
    ],
)
def test_every_spelling_of_a_used_key_is_replaced(text: str) -> None:
    """Whole, with its bucket, in a path, percent-encoded, its folder, its file name: the digest stands there instead."""
    privacy.note_key("inbox", KEY)
    said = privacy.without_keys(text)
    assert not [word for word in ("DOE", "JOHN", "Jane", "IM_1") if word in said]
    assert "inbox#" in said
    assert "inbox/inbox#" not in said


@pytest.mark.parametrize(
    "key", ["M\u00fcller/1.dcm", "O'Brien\\1.dcm", "a\x1bb/Doe.dcm", "\u0416/\u0416\u0416\u0416.nii"]
)
@pytest.mark.parametrize("spell", [str, repr, json.dumps], ids=["plain", "repr", "json"])
def test_escaped_keys_are_found_too(key: str, spell: type) -> None:
    """As Python and JSON write them."""
    privacy.note_key("inbox", key)
    said = privacy.without_keys(f"about {spell(key)} here")
    assert privacy.object_digest(f"inbox/{key}") in said
    assert spell(key).strip("'\"") not in said


def test_words_that_only_contain_a_key_stay() -> None:
    """A key is replaced where it stands by itself, and a folder only as part of a path."""
    privacy.note_key("inbox", "CT/1")
    privacy.note_key("inbox", "segment.dcm")
    text = "a CT model; 1 of 31 segments; mysegment.dcms"
    assert privacy.without_keys(text) == text


def test_stores_note_what_they_are_asked_for(tmp_path: Path) -> None:
    """So that whatever is said afterwards can be told without the key; keys of results are Voxelmill's own."""

    async def ask() -> None:
        for name in ("inbox", "results"):
            assert not await LocalStore(tmp_path, name).exists(f"Doe/{name}.dcm")

    import asyncio

    asyncio.run(ask())
    assert privacy.without_keys("Doe/inbox.dcm") == privacy.object_digest("inbox/Doe/inbox.dcm")
    assert privacy.without_keys("seen results.dcm") == "seen results.dcm"


def test_only_the_last_keys_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, and a key that is used again counts as new."""
    monkeypatch.setattr(privacy, "_KEPT", 3)
    for key in ("one.dcm", "two.dcm", "three.dcm", "one.dcm", "four.dcm"):
        privacy.note_key("inbox", key)
    assert list(privacy._recent) == ["three.dcm", "one.dcm", "four.dcm"]


def test_a_digest_leads_back_for_who_may_know() -> None:
    """What people ask for is shown to them with its key."""
    privacy.note_key("inbox", KEY)
    said = privacy.without_keys(f"inbox/{KEY}: gone")
    assert privacy.with_keys(said, privacy.recent_addresses()) == f"inbox/{KEY}: gone"
    assert privacy.with_keys(said, {}) == f"{DIGEST}: gone"


def test_errors_are_described_without_what_they_quote() -> None:
    """Their kind and place are told. Our own texts and the system's are, a library's are not."""
    name = "DOE^JOHN"
    with pytest.raises(ValueError, match="DOE") as raised:
        float(name)
    said = privacy.describe(raised.value)
    assert said.startswith("ValueError in test_errors_are_described")
    assert "DOE" not in said + privacy.format_error(raised.value)
    assert privacy.unquoted(raised.value) == "could not convert string to float: \u2026"
    assert privacy.describe(ObjectMissingError("k")) == "ObjectMissingError: k: no such object"
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/inbox/DOE")
    assert privacy.describe(full) == "OSError: No space left on device"


def test_a_trace_tells_of_causes_and_of_no_value() -> None:
    """Frames and source lines of the whole chain."""

    def read() -> None:
        raise KeyError("JANE")

    try:
        try:
            read()
        except KeyError as error:
            raise RuntimeError("DOE") from error
    except RuntimeError as error:
        said = privacy.format_error(error)
    assert "in read" in said
    assert "which came of" in said
    assert "RuntimeError in" in said
    assert ": DOE" not in said
    assert "'JANE'" not in said


def test_no_log_line_quotes_a_header_or_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries that read files warn with values, and a reason may name an object: neither stands in a line."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    before = structlog.get_config()
    logs.configure("INFO")
    handler = logs._OfLibraries()
    level = logging.getLogger("pydicom").level
    logging.getLogger("pydicom").setLevel(logging.WARNING)  # ingest silences it
    logging.getLogger("pydicom").addHandler(handler)
    logging.getLogger("py.warnings").addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(False)  # whoever has captured them before, it is inside of this block now
            logging.captureWarnings(True)
            # As pydicom does, which others of this process may have told to be silent.
            warnings.warn("Invalid value for VR DA: 'DOE^JOHN'", UserWarning, stacklevel=1)
        logging.getLogger("pydicom").warning("Invalid value for VR UI: 'DOE^JOHN'")
        privacy.note_key("inbox", KEY)
        log = structlog.get_logger("voxelmill")
        log.warning("waits", subject=f"inbox/{KEY}", reason=f"{KEY}: gone", paths=[KEY])
        name = "DOE^JOHN"
        try:
            int(name)
        except ValueError:
            log.exception("broke")
    finally:
        logging.captureWarnings(False)
        logging.getLogger("pydicom").removeHandler(handler)
        logging.getLogger("pydicom").setLevel(level)
        logging.getLogger("py.warnings").removeHandler(handler)
        structlog.configure(**before)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert {line.get("library") for line in lines} >= {"pydicom", "py.warnings"}
    assert "DOE" not in stream.getvalue()
    waits = next(line for line in lines if line["event"] == "waits")
    assert (waits["subject"], waits["reason"], waits["paths"]) == (DIGEST, f"{DIGEST}: gone", [DIGEST])
    assert "ValueError in" in lines[-1]["exception"]


def test_an_error_that_ends_the_process_is_told_without_its_text() -> None:
    """On standard error as a line of JSON, in threads too."""
    program = (
        "import threading\nfrom voxelmill_shared import logs\nlogs.configure()\nlogs.tell_of_the_end()\n"
        "name = ''.join(['DO', 'E'])\n"
        "thread = threading.Thread(target=lambda: int(name))\nthread.start()\nthread.join()\n"
        "raise ValueError(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "DOE" not in done.stderr
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == ["ended by an error"] * 2
