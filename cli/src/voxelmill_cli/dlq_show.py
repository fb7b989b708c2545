"""`voxelmill dlq show`: everything that is known of one dead letter."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxelmill_cli.console import say
from voxelmill_cli.dlq import as_document, open_broker, settings_of
from voxelmill_cli.dlq_logs import KEPT, STACK_LOGS, log_files, trace_lines
from voxelmill_cli.errors import EXIT_INPUT_FAILED, CommandError
from voxelmill_shared import dead_letters
from voxelmill_shared.dead_letters import EVERYTHING
from voxelmill_shared.errors import ObjectMissingError, TransientError, UnsafeKeyError
from voxelmill_shared.events import DocumentRef, ObjectRef
from voxelmill_shared.storage.connect import open_store
from voxelmill_shared.storage.keys import printable
from voxelmill_shared.storage.stores import Stores
from voxelmill_shared.transport.headers import history_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rich.console import Console

    from voxelmill_shared.events import Event
    from voxelmill_shared.settings import SharedSettings
    from voxelmill_shared.storage.base import ObjectStore

SHOWN_BYTES = 512
"""How much of a body is shown that cannot be decoded."""
SHOWN_EVENT = 20_000
"""How many characters of an event are shown to people. `--json` gives all of it."""


async def show(data: Path, handle: str, log: Path | None) -> dict[str, Any]:
    """Give everything that is known of a dead letter, as data.

    Raises
    ------
    CommandError
        If there is no such installation, the letter goes away meanwhile, or the log that was named is not there.
    NoSuchLetterError, AmbiguousHandleError
        If the handle names none, or several.
    """
    files = log_files(log, (Path(STACK_LOGS), data / "logs"))
    settings = settings_of(data)
    async with open_broker(settings) as transport:
        letter = dead_letters.pick(await dead_letters.look(transport, EVERYTHING), handle)
        dead = await dead_letters.fetch(transport, letter)
    if dead is None:
        raise CommandError(f"{letter.handle}: was replayed or dropped in this moment", EXIT_INPUT_FAILED)
    envelope, event = dead_letters.read_body(dead.message.body)
    found = as_document(letter)
    found["history"] = history_of(dead.message)
    found["event"] = envelope.model_dump(mode="json", exclude_none=True) if envelope else None
    if envelope is None:
        found["body"] = {"size": len(dead.message.body), "begins": escaped(dead.message.body[:SHOWN_BYTES])}
        found["headers"] = {printable(name): _plain(value) for name, value in dead.message.headers.items()}
    found["objects"] = await _objects(settings, event) if event is not None else []
    found["log"] = {
        "files": [str(path) for path in files],
        "lines": trace_lines(files, letter.trace_id) if letter.trace_id else [],
    }
    return found


def escaped(body: bytes) -> str:
    r"""Write bytes so that no terminal takes them for a command: `\\x1b`, and what is no UTF-8 as `\\xff`."""
    return printable(body.decode("utf-8", "backslashreplace"))


def _plain(value: str | int) -> str | int:
    return value if isinstance(value, int) else printable(value)


async def _objects(settings: SharedSettings, event: Event) -> list[dict[str, Any]]:
    """Look where the event's object and documents are, and whether they still are what the event says."""
    found = []
    async with _stores(settings) as stores:
        for name, value in event:
            if isinstance(value, ObjectRef):
                try:
                    store: ObjectStore | None = stores.of(value)
                except ObjectMissingError:
                    store = None
                found.append({"what": name, "address": value.address(), **await _look(store, value.key, value)})
            elif isinstance(value, DocumentRef):
                address = f"{stores.results.bucket}/{value.key}"
                found.append({"what": name, "address": address, **await _look(stores.results, value.key, None)})
    return found


@asynccontextmanager
async def _stores(settings: SharedSettings) -> AsyncIterator[Stores]:
    stores = Stores(
        inbox=open_store(settings.inbox_url, bucket="inbox"),
        work=open_store(settings.work_url, bucket="work"),
        results=open_store(settings.results_url, bucket="results"),
    )
    try:
        yield stores
    finally:
        for store in (stores.inbox, stores.work, stores.results):
            await store.close()


async def _look(store: ObjectStore | None, key: str, meant: ObjectRef | None) -> dict[str, Any]:
    if store is None:
        return {"exists": None, "reason": "no store of this installation has that name"}
    try:
        stat = await store.head(key)
    except ObjectMissingError:
        return {"exists": False}
    except (TransientError, UnsafeKeyError) as error:
        return {"exists": None, "reason": str(error)}
    same = None if meant is None else (stat.size, stat.etag) == (meant.size, meant.etag)
    return {"exists": True, "size": stat.size, "modified": stat.modified.isoformat(), "same": same}


def print_letter(console: Console, found: dict[str, Any]) -> None:
    """Print what `show` gave, for people."""
    for name in (
        "handle", "queue", "dead_at", "error_class", "reason", "attempts", "replays", "message_type", "message_id",
        "series_instance_uid", "study_instance_uid", "job", "trace_id", "service_version",
    ):  # fmt: skip
        if found[name] not in (None, ""):
            say(console, f"{name.replace('_', ' ')}: {found[name]}")
    for entry in found["history"]:
        at, error_class, reason = (entry.get(name, "") for name in ("at", "error_class", "reason"))
        say(console, f"  attempt {entry.get('attempt', '?')} {at} {error_class}: {reason}")
    for entry in found["objects"]:
        say(console, f"{entry['what']}: {entry['address']}: {_standing(entry)}")
    if found["event"] is None:
        body = found["body"]
        more = "…" if body["size"] > SHOWN_BYTES else ""
        say(console, f"body: {body['size']} bytes that are no event; it begins: {body['begins']}{more}")
    else:
        text = json.dumps(found["event"], indent=1, ensure_ascii=False)
        for line in text[:SHOWN_EVENT].splitlines():
            say(console, line)
        if len(text) > SHOWN_EVENT:
            say(console, f"… {len(text) - SHOWN_EVENT} more characters; --json gives all of it")
    _print_log(console, found)


def _standing(entry: dict[str, Any]) -> str:
    if entry["exists"] is None:
        return f"not known: {entry['reason']}"
    if not entry["exists"]:
        return "is not there any more"
    changed = ", but with another content than the event means" if entry["same"] is False else ""
    return f"there, {entry['size']} bytes{changed}"


def _print_log(console: Console, found: dict[str, Any]) -> None:
    log = found["log"]
    if found["trace_id"] is None:
        say(console, "log: the letter names no trace, so there are no lines of it")
    elif not log["files"]:
        say(console, f"log: no file known ({STACK_LOGS} of `make up` is not here); name one with --log")
    elif not log["lines"]:
        say(console, f"log: no line of this trace in {', '.join(log['files'])}")
    else:
        say(console, f"log: the {len(log['lines'])} lines of this trace (at most {KEPT}):")
        for line in log["lines"]:
            say(console, f"  {json.dumps(line, ensure_ascii=False)}")
