"""Fetching weights from the library's own addresses. Nothing else in Voxelmill goes there, and no worker does.

A download goes on where the last one stopped (HTTP ranges, RFC 9110 14), as long as it is the same file (`If-Range`).
The publisher gives no digests: what came is held to its length and to the checksum of every member of the zip.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from voxelmill_segment.totalsegmentator.weights_import import Imported, WeightsRefusedError, import_path
from voxelmill_shared.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from voxelmill_segment.totalsegmentator.weights import WeightsFolder

_DOWNLOADS = ".downloads"
_BLOCK = 1 << 18
_ATTEMPTS = 5
_SECONDS = 60.0
"""How long the server may be silent."""


class WeightsUnreachableError(TransientError):
    """The server of the weights did not answer, or not with the file."""

    error_class = "weights-unreachable"


def download(
    weights: WeightsFolder, name: str, address: str, report: Callable[[int, int], None], *, replace: bool = False
) -> Imported:
    """Fetch one data set and import it.

    Parameters
    ----------
    weights
        Where it goes.
    name
        The data set, `Dataset297_…`.
    address
        Its zip (`library.download_address`).
    report
        Is told how many bytes are here, and how many there are (0 if that is not known).
    replace
        Whether a data set that is there with other content gives way.

    Raises
    ------
    WeightsUnreachableError
        If it cannot be fetched. What is here stays, and the next call goes on from there.
    WeightsRefusedError
        If what came is damaged; it is removed.
    """
    folder = weights.path / _DOWNLOADS
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{name}.zip.part"
    with (folder / f"{name}.lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WeightsUnreachableError(f"{name}: another process is fetching it; wait for that") from None
        for attempt in range(1, _ATTEMPTS + 1):
            before = _size(part)
            try:
                _fetch(part, address, report)
                break
            except (OSError, http.client.HTTPException, ValueError) as error:
                stuck = isinstance(error, urllib.error.HTTPError) or _size(part) <= before
                if stuck or attempt == _ATTEMPTS:
                    reason = getattr(error, "reason", None) or error
                    raise WeightsUnreachableError(
                        f"{address}: {reason}; {_size(part)} bytes are kept, start again and it goes on from there"
                    ) from None
        try:
            done = import_path(weights, part, origin=address, replace=replace)
        except WeightsRefusedError:
            if not (weights.path / name).exists():
                _forget(part)  # damaged: nothing of it is any good
            raise
        _forget(part)
    found = next((one for one in done if one.dataset.name == name), None)
    if found is None:
        raise WeightsRefusedError(f"{address}: holds {', '.join(one.dataset.name for one in done)} and not {name}")
    return found


def _fetch(part: Path, address: str, report: Callable[[int, int], None]) -> None:
    """Bring the rest of a file; return when all of it is here."""
    about = part.with_suffix(".json")
    here, etag = _size(part), _read_etag(about)
    request = urllib.request.Request(address)  # noqa: S310 - the library's own address
    if here and etag:
        request.add_header("Range", f"bytes={here}-")
        request.add_header("If-Range", etag)
    else:
        here = 0
    try:
        response = urllib.request.urlopen(request, timeout=_SECONDS)  # noqa: S310 - as above
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and here:
            if error.headers.get("Content-Range") == f"bytes */{here}":
                return  # all of it is here
            _forget(part)
        raise
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            here = 0  # the file is another one now, or the server knows no ranges
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {here}-"):
            raise ValueError(f"the server sent {response.headers.get('Content-Range')!r} for bytes {here} and on")
        length = response.headers.get("Content-Length")
        total = here + int(length) if length else 0
        about.write_text(json.dumps({"etag": response.headers.get("ETag", "")}), encoding="utf-8")
        with part.open("r+b" if here else "wb") as file:
            file.seek(here)
            report(here, total)
            while block := response.read(_BLOCK):
                file.write(block)
                here += len(block)
                report(here, total)
    if total and here != total:
        raise http.client.IncompleteRead(b"", total - here)


def _read_etag(about: Path) -> str:
    """The strong validator of what is here; a weak one says nothing about bytes (RFC 9110 13.1.5)."""
    try:
        etag = str(json.loads(about.read_text(encoding="utf-8"))["etag"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return "" if etag.startswith("W/") else etag


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_suffix(".json").unlink(missing_ok=True)
