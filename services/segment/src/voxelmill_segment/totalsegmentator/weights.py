"""The weights folder: which networks are there, whole, and what they are, told by their digests.

It is laid out as nnU-Net reads it, `Dataset297_…/{trainer}__{plans}__{configuration}/fold_0/checkpoint_final.pth`, and
each data set holds one file more, the record that was made when it was brought in: every file's size and SHA-256. A
data set appears under its name when all of it is there (`weights_import`), so none is ever seen half.

A data set's digest is the SHA-256 of its files' names and SHA-256; that of a request is the SHA-256 of its data sets'
names and digests. It goes into the receipt, and a plan may ask for it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxelmill_shared.errors import NotEquippedError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping

    from voxelmill_segment.totalsegmentator.library import Network

RECORD = "voxelmill-weights.json"
CHECKPOINT = "checkpoint_final.pth"
DATASET = re.compile(r"Dataset\d{3}_[A-Za-z0-9_-]{1,100}")
"""How nnU-Net names a data set's folder."""
_BLOCK = 1 << 20


class MissingWeightsError(NotEquippedError):
    """Weights that the job needs are not in the worker's folder.

    Parameters
    ----------
    folders
        The data sets that are missing.
    where
        The weights folder.
    """

    def __init__(self, folders: tuple[str, ...], where: Path) -> None:
        super().__init__(folders, where)
        self.folders = folders
        self.where = where

    def __str__(self) -> str:
        return (
            f"weights are missing in {self.where}: {', '.join(self.folders)};"
            " bring them with `voxelmill weights download` or `import`, or set VOXELMILL_WEIGHTS to where they are"
        )


class OtherWeightsError(NotEquippedError):
    """The plan asks for weights of a certain digest, and the worker has others."""


@dataclass(frozen=True, slots=True)
class FileDigest:
    """What a file of a data set was when it was brought in."""

    size: int
    sha256: str
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Dataset:
    """One data set of the weights folder.

    Parameters
    ----------
    name
        Its folder.
    digest
        SHA-256 of what its files are now.
    size
        Bytes.
    recorded
        Whether it was brought in by `voxelmill weights`, so that it can be verified.
    """

    name: str
    digest: str
    size: int
    recorded: bool


@dataclass(frozen=True, slots=True)
class WeightsFolder:
    """The networks that lie under one folder."""

    path: Path

    def missing(self, networks: Iterable[Network]) -> tuple[str, ...]:
        """The data sets of those networks that are not there, or not whole."""
        return tuple(sorted({one.folder for one in networks if not self._holds(one)}))

    def require(self, networks: Iterable[Network]) -> None:
        """Make sure that every network is there.

        Raises
        ------
        MissingWeightsError
            If one is not.
        """
        if missing := self.missing(networks):
            raise MissingWeightsError(missing, self.path)

    def digest(self, networks: Iterable[Network]) -> str:
        """Return the one digest of the networks of a request (`Request.all_networks`): 64 hex digits.

        Files whose size and time are those of the record are taken to be what it says; others are read.

        Raises
        ------
        MissingWeightsError
            If one is not there.
        """
        networks = tuple(networks)
        self.require(networks)
        return combined({one.folder: self.dataset(one.folder).digest for one in networks})

    def agree(self, pinned: str, networks: Iterable[Network]) -> str:
        """Return the digest of the networks, and make sure that it is one that the plan allows.

        Parameters
        ----------
        pinned
            `Plan.weights_digest`: digests with `+` between them (a plan may mean one network for CT, another for MR);
            empty: any will do.
        networks
            What is about to be used.

        Raises
        ------
        MissingWeightsError
            If one is not there.
        OtherWeightsError
            If they are others than the plan's.
        """
        found = self.digest(networks)
        if pinned and found not in pinned.split("+"):
            raise OtherWeightsError(
                f"the job asks for weights {' or '.join(one[:12] for one in pinned.split('+'))}, this worker has"
                f" {found[:12]} in {self.path}: bring the right ones (`voxelmill weights import`), or set"
                " VOXELMILL_WEIGHTS_DIGEST right at ingest"
            )
        return found

    def dataset(self, name: str) -> Dataset:
        """Describe one data set that is there."""
        folder = self.path / name
        record = read_record(folder)
        files = dict(files_of(folder))
        digests = {
            key: (
                record[key].sha256
                if key in record and (record[key].size, record[key].mtime_ns) == (found.st_size, found.st_mtime_ns)
                else _sha256(str(folder / key), found.st_size, found.st_mtime_ns)
            )
            for key, found in files.items()
        }
        size = sum(found.st_size for found in files.values())
        return Dataset(name, combined(digests), size, recorded=bool(record))

    def datasets(self) -> tuple[Dataset, ...]:
        """Every data set that is there, by name."""
        if not self.path.is_dir():
            return ()
        names = sorted(one.name for one in self.path.iterdir() if DATASET.fullmatch(one.name) and one.is_dir())
        return tuple(self.dataset(name) for name in names if trained_models(self.path / name))

    def verify(self, name: str) -> tuple[str, ...]:
        """Read every byte of a data set and say what is not as it was recorded, one line each; none if all is well."""
        folder = self.path / name
        record = read_record(folder)
        if not record:
            return (f"{name}: was never recorded; `voxelmill weights import {self.path}` records what lies there",)
        files = dict(files_of(folder))
        wrong = [f"{name}/{key}: missing" for key in sorted(record.keys() - files.keys())]
        wrong += [f"{name}/{key}: not recorded" for key in sorted(files.keys() - record.keys())]
        for key in sorted(record.keys() & files.keys()):
            if files[key].st_size != record[key].size:
                wrong.append(f"{name}/{key}: {files[key].st_size} bytes, recorded are {record[key].size}")
            elif sha256_of(folder / key) != record[key].sha256:
                wrong.append(f"{name}/{key}: other content than was recorded")
        return tuple(wrong)

    def _holds(self, network: Network) -> bool:
        model = self.path / network.path
        checkpoints = (
            list(model.glob(f"fold_*/{CHECKPOINT}"))
            if network.folds is None
            else [model / f"fold_{fold}" / CHECKPOINT for fold in network.folds]
        )
        needed = [model / "dataset.json", model / "plans.json", *checkpoints]
        return bool(checkpoints) and all(path.is_file() for path in needed)


def trained_models(dataset: Path) -> tuple[Path, ...]:
    """The folders of a data set that hold a whole trained model, at least one fold of it."""
    return tuple(
        sorted(
            model
            for model in dataset.glob("*__*__*")
            if (model / "dataset.json").is_file()
            and (model / "plans.json").is_file()
            and any(model.glob(f"fold_*/{CHECKPOINT}"))
        )
    )


def files_of(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """The files of a data set but for its record, by their path in it with `/`, sorted."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / RECORD:
            yield path.relative_to(folder).as_posix(), path.stat()


def read_record(folder: Path) -> dict[str, FileDigest]:
    """Read the record of a data set; empty if there is none that can be read."""
    try:
        document: Any = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return {key: FileDigest(**entry) for key, entry in document["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def write_record(folder: Path, source: str) -> Dataset:
    """Read every file of a data set and write down what it is."""
    files = {
        key: FileDigest(found.st_size, sha256_of(folder / key), found.st_mtime_ns) for key, found in files_of(folder)
    }
    digest = combined({key: entry.sha256 for key, entry in files.items()})
    document = {
        "source": source,
        "sha256": digest,
        "files": {
            key: {"size": entry.size, "sha256": entry.sha256, "mtime_ns": entry.mtime_ns}
            for key, entry in files.items()
        },
    }
    new = folder / f"{RECORD}.new"
    new.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    new.replace(folder / RECORD)
    return Dataset(folder.name, digest, sum(entry.size for entry in files.values()), recorded=True)


def combined(digests: Mapping[str, str]) -> str:
    """Return the digest of things by their names and digests."""
    lines = "".join(f"{digest} {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Read a file and return its SHA-256 in hex."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@lru_cache(maxsize=1024)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    """Hash a file once in a process, as long as it stays what it is."""
    del size, mtime_ns  # parts of the key
    return sha256_of(Path(path))
