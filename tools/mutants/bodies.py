"""What buckets' servers and the broker bring, made wrong: read, or refused in one line."""

from __future__ import annotations

import json
from copy import deepcopy
from random import Random
from typing import TYPE_CHECKING, Any

from mutants.corruption import cut, flipped, spliced
from voxelmill_ingest.triggers.normaliser import parse
from voxelmill_ingest.triggers.notification import Notification, UnknownNotificationError
from voxelmill_shared.errors import UndecodableMessageError
from voxelmill_shared.events import Envelope, ObjectRef, ObjectUploaded, open_envelope

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 1e308, 10**30, "", "\0", "\ud800", "../../x", "<script>", "%00%ff%zz", "+", [], {}, [[]]),
    *(
        "x" * 5000,
        {"Records": []},
        [{"s3": {}}],
        "ObjectCreated:Put",
        "aws:s3",
        "2.1",
        "9.9",
        "null",
        "{}",
        "🫁\n\x1b[2J",
    ),
)


def _documents(folder: Path) -> list[Any]:
    """Return the bodies that stand in the files of examples, those within them too, and one of our own messages."""
    found: list[Any] = []

    def take(value: Any, depth: int) -> None:
        if isinstance(value, dict):
            found.append(value)
        if depth:
            inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
            for one in inner:
                take(one, depth - 1)

    for path in sorted(folder.glob("*.json")):
        take(json.loads(path.read_text()), 3)
    event = ObjectUploaded(object=ObjectRef(bucket="b", key="k", etag="e", size=1), found_by="mutants")
    message = json.loads(Envelope.wrap(event, "mutants").encode())
    return [*found, *[message] * (len(found) // 2)]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        yield value, key
        yield from _places(value[key])


def _mutated(rng: Random, document: Any) -> bytes:
    body = json.dumps(document).encode()
    if rng.random() < 0.35:
        return rng.choice((flipped(rng, body), cut(rng, body), spliced(rng, body, body)))
    value = json.loads(body)
    for _ in range(rng.choice((1, 1, 2, 5))):
        places = list(_places(value))
        if not places:
            break
        holder, key = rng.choice(places)
        kind = rng.random()
        if kind < 0.2:
            del holder[key]
        elif kind < 0.3 and isinstance(holder, dict):
            holder["x" + str(key)] = holder.pop(key)
        elif kind < 0.4:
            holder[key] = json.dumps(holder[key])
        else:
            holder[key] = deepcopy(rng.choice(_VALUES))
    body = json.dumps(value).encode()
    if rng.random() < 0.05:
        body = rng.choice(
            (b"[" * 50_000, b'{"a":' * 50_000, b"", b"\0", b"null", b"\xff" + body, body * 2, b"9" * 10_000)
        )
    return body


def check_bodies(folder: Path, count: int, seed: int) -> list[str]:
    """Mutate bodies, read each as a notification and as a message of ours; return what must not be."""
    documents = _documents(folder)
    faults = []
    for number in range(count):
        rng = Random(f"{seed}/bodies/{number}")
        body = _mutated(rng, rng.choice(documents))
        for name, read in (("notification", _notification), ("message", _message)):
            try:
                line = read(body)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what this looks for
                faults.append(f"{name} {number}: {type(error).__name__}: {error}")
                continue
            if not line.isprintable() or len(line) > 2_000:
                faults.append(f"{name} {number}: no line for people: {line[:200]!r}")
    return faults


def _notification(body: bytes) -> str:
    try:
        told: list[Notification] = parse(body)
    except UnknownNotificationError as error:
        return str(error)
    for one in told:
        event = ObjectUploaded(
            object=ObjectRef(bucket=one.bucket, key=one.key, etag=one.etag, size=one.size, version_id=one.version_id),
            found_by="notification",
        )
        Envelope.wrap(event, "mutants").encode()
    return ""


def _message(body: bytes) -> str:
    try:
        open_envelope(Envelope.decode(body))
    except UndecodableMessageError as error:
        return str(error)
    return ""
