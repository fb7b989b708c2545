"""`voxelmill doctor`: what is there, what is missing, and the command that mends it."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError
from pydantic_settings import SettingsError

from voxelmill_gateway.settings import GatewaySettings
from voxelmill_ingest.triggers import probe
from voxelmill_ingest.triggers.settings import IngestProcessSettings
from voxelmill_shared.database import check as check_database
from voxelmill_shared.database import open_database
from voxelmill_shared.errors import StoreUnavailableError, VoxelmillError
from voxelmill_shared.main import wrong_settings
from voxelmill_shared.settings import SharedSettings
from voxelmill_shared.storage.connect import open_store
from voxelmill_shared.storage.local import LocalStore
from voxelmill_shared.transport.connect import open_transport

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from rich.console import Console

CODECS = {
    "imagecodecs": "JPEG 2000, HTJ2K, JPEG-LS, JPEG",
    "rle": "RLE",
    "highdicom": "DICOM SEG",
    "numba": "segmentation and surfaces",
    "cc3d": "the model threshold",
}
ROOM_NEEDED = 5 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `mend` is a command or a sentence; empty where nothing is to be mended."""

    name: str
    good: bool
    detail: str
    mend: str = ""
    needed: bool = True

    def as_dict(self) -> dict[str, Any]:
        """Give the finding as data."""
        return asdict(self)


async def examine(data: Path) -> list[Finding]:
    """Look at everything that `voxelmill up --data DATA` needs, or the servers that the environment names."""
    from voxelmill_cli.doctor_model import examine_model  # noqa: PLC0415 - it imports this module

    findings = [_python(), *_packages(), *examine_model(), _memory(), _disk(data)]
    wrong, settings = _settings()
    findings += wrong
    if settings is None:
        return findings
    if not any(name.startswith("VOXELMILL_") and name.endswith("_URL") for name in os.environ):
        findings.append(Finding("servers", True, "none named: broker, store and database are files under --data"))
        return [*findings, *await _notifications(IngestProcessSettings())]
    findings.append(await _reach("broker", "VOXELMILL_BROKER_URL", lambda: reach_broker(settings.broker_url)))
    for role, url in (("inbox", settings.inbox_url), ("work", settings.work_url), ("results", settings.results_url)):
        findings.append(await _reach(role, f"VOXELMILL_{role.upper()}_URL", partial(reach_store, url)))
    findings.append(await _reach("database", "VOXELMILL_DATABASE_URL", lambda: reach_database(settings.database_url)))
    return [*findings, *await _notifications(IngestProcessSettings())]


def _settings() -> tuple[list[Finding], SharedSettings | None]:
    """Read what every service would read; settings that several share are told of once."""
    from voxelmill_cli.engine import BUILDERS  # noqa: PLC0415 - the codecs are to be tried first

    wrong: dict[str, None] = {}
    shared: SharedSettings | None = None
    more: list[type[SharedSettings]] = [IngestProcessSettings, GatewaySettings]
    kinds: list[type[SharedSettings]] = [SharedSettings, *(kind for _, kind in BUILDERS), *more]
    for settings_type in kinds:
        try:
            read = settings_type()
            shared = shared or read
        except (ValidationError, SettingsError) as error:
            wrong.update(dict.fromkeys(wrong_settings(error)))
    if not wrong:
        return [Finding("settings", True, "can be read")], shared
    return [Finding("settings", False, line, f"set {line.split(':')[0]} right") for line in wrong], None


async def _reach(name: str, variable: str, check: Callable[[], Coroutine[Any, Any, None]], first: str = "") -> Finding:
    try:
        await check()
    except (VoxelmillError, ValueError) as error:
        return Finding(name, False, str(error), f"{first or 'start it'}, or set {variable} to where it is")
    return Finding(name, True, "answers")


async def _notifications(settings: IngestProcessSettings) -> list[Finding]:
    """Look at the sources of notifications that `voxelmill-ingest` would listen to."""
    findings = []
    on = settings.sources()
    if settings.notification_sns_topic and "http" not in on:
        lacks = "VOXELMILL_NOTIFICATION_SNS_TOPIC is set, but no token: nothing can be pushed"
        mend = "set VOXELMILL_NOTIFICATION_TOKEN; `openssl rand -hex 32` makes a good one"
        findings.append(Finding("notifications-http", False, lacks, mend))
    elif "http" in on:
        findings.append(Finding("notifications-http", True, "pushes to /notifications are taken with the token"))
    for name, variable, check, first in (
        ("amqp", "VOXELMILL_AMQP_NOTIFICATIONS_URL", probe.reach_amqp, ""),
        ("sqs", "VOXELMILL_SQS_QUEUE_URL", probe.reach_sqs, "make the queue"),
        ("seaweedfs", "VOXELMILL_SEAWEEDFS_FILER", probe.reach_filer, ""),
    ):
        if name in on:
            findings.append(await _reach(f"notifications-{name}", variable, partial(check, settings), first))
    if not on and not settings.reconcile_seconds:
        nothing = "neither notifications nor the reconciler tell voxelmill-ingest of new objects"
        mend = "unset VOXELMILL_RECONCILE_SECONDS, or see services/ingest/README.md for the sources"
        findings.append(Finding("notifications", False, nothing, mend, needed=False))
    return findings


async def reach_broker(url: str) -> None:
    """Return if the broker at an address answers; raise the reason if not. A file that is missing is not made."""
    transport = open_transport(url)
    parts = urlsplit(url)
    file = Path(unquote(parts.path)) if parts.scheme == "embedded" else None
    try:
        if file and not os.path.exists(file):  # noqa: ASYNC240, PTH110 - one look at a local disk
            _check_can_be_made(file)
        else:
            await transport.check()
    finally:
        await transport.close()


async def reach_store(url: str) -> None:
    """Return if the store at an address answers; raise the reason if not. A folder that is missing is not made."""
    store = open_store(url)
    try:
        if isinstance(store, LocalStore) and not store.root.exists():
            _check_can_be_made(store.root)
        else:
            await store.check()
    finally:
        await store.close()


async def reach_database(url: str) -> None:
    """Return if the database at an address answers; raise the reason if not."""
    engine = open_database(url)
    file = Path(engine.url.database or "") if engine.dialect.name == "sqlite" else None
    try:
        if file and not os.path.exists(file):  # noqa: ASYNC240, PTH110 - one look at a local disk
            _check_can_be_made(file)  # connecting would make it
        else:
            await check_database(engine)
    finally:
        await engine.dispose()


def _check_can_be_made(path: Path) -> None:
    """Raise the reason why a file or folder that is not there could not be made."""
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StoreUnavailableError(f"{path}: {folder} cannot be written")


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Finding("python", good, version, "" if good else "install Python 3.11, 3.12 or 3.13")


def _packages() -> list[Finding]:
    findings = []
    for module, purpose in CODECS.items():
        try:
            importlib.import_module(module)
            findings.append(Finding(module, True, purpose))
        except ImportError as error:
            findings.append(Finding(module, False, f"{purpose}: {error}", "make setup"))
    return findings


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    good = total >= 4 << 30
    return Finding(
        "memory",
        good,
        f"{total / 2**30:.1f} GiB",
        "" if good else "a 512x512x300 CT wants about 4 GiB; use a machine with more",
        needed=False,
    )


def _disk(data: Path) -> Finding:
    folder = data.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        return Finding("disk", False, f"{folder} cannot be written", "choose another folder with --data")
    good = free >= ROOM_NEEDED
    return Finding("disk", good, f"{free / 1e9:.1f} GB free in {folder}", "" if good else "make room, or choose --data")


def print_findings(console: Console, findings: list[Finding]) -> None:
    """Print one line for each finding, and the mending under what needs it."""
    for finding in findings:
        sign = "ok     " if finding.good else ("MISSING" if finding.needed else "warning")
        console.print(f"{sign} {finding.name}: {finding.detail}", markup=False, highlight=False, soft_wrap=True)
        if not finding.good and finding.mend:
            console.print(f"        mend: {finding.mend}", markup=False, highlight=False, soft_wrap=True)
