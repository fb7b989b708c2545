"""How the inner loops are compiled: once, kept on disk, without Python's lock.

numba keeps machine code by the file of the function alone. What other files put into it, functions that it calls and
constants that it reads, may change without numba noticing, and the old code goes on being used. So it is kept here by
the digest of all sources of the package that the function's module imports, itself and by what it imports: a folder
for each, `voxelmill_mesh-DIGEST`, in the first of these places that can be written to: NUMBA_CACHE_DIR, `__pycache__`
beside the sources, the user's cache. Where none can, it is compiled anew in every process.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import numba
from numba import njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FunctionT = TypeVar("FunctionT", bound="Callable[..., Any]")

Array: TypeAlias = NDArray[Any]
"""An array inside compiled code, whose elements numba types."""

_SOURCES = Path(__file__).parent
_NAMES = rf"\b{_SOURCES.name}\.([\w.]+)".encode()
"""Modules of the package, in a source."""
_UNUSED_SECONDS = 7 * 86400.0
"""Code of other sources that no process began with for so long is removed."""


def _imported(body: bytes) -> list[Path]:
    """Return the files of the package that a source names, imported or not."""
    names = [name.decode() for name in re.findall(_NAMES, body)]
    paths = (_SOURCES.joinpath(*name.split(".")).with_suffix(".py") for name in names)
    return [path for path in paths if path.is_file()]


def _digest(source: Path) -> str:
    """Return the digest of a source and all that it imports of the package, and of the compiler's version."""
    bodies: dict[Path, bytes] = {}
    waiting = [source]
    while waiting:
        path = waiting.pop()
        if path not in bodies:
            bodies[path] = path.read_bytes()
            waiting += _imported(bodies[path])
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(bodies):
        digest.update(f"\n{path.name} {len(bodies[path])}\n".encode())
        digest.update(bodies[path])
    return digest.hexdigest()[:16]


def _places() -> list[Path]:
    given = [Path(place)] if (place := os.environ.get("NUMBA_CACHE_DIR")) else []
    user = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # noqa: PTH111 - never raises
    return [*given, _SOURCES / "__pycache__", user / "voxelmill"]


def _remove_unused(folder: Path) -> None:
    """Remove what other sources than these left beside a folder, if it is long ago that a process began with it."""
    for other in folder.parent.glob(f"{_SOURCES.name}-*"):
        # Another process may do the same, or begin with it: then it is compiled once more.
        with suppress(OSError):
            if other != folder and time.time() - other.stat().st_mtime > _UNUSED_SECONDS:
                shutil.rmtree(other, ignore_errors=True)


@cache
def _folder(source: Path) -> Path | None:
    """Return where the machine code of a source is kept; None if nothing can be written anywhere."""
    name = f"{_SOURCES.name}-{_digest(source)}"
    for place in _places():
        folder = place / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            os.utime(folder)
        except OSError:
            continue  # the next place may do: an installation is often read-only
        _remove_unused(folder)
        return folder
    return None


@contextmanager
def _locked(folder: str, kind: int, name: str = "lock") -> Iterator[None]:
    """Let one process at a time write: numba's index and the code that it names are two files."""
    with Path(folder, name).open("a") as file:
        fcntl.flock(file, kind)
        yield


class _Locator:
    """Says where the code of a function is kept. The folder is one of these sources, so nothing in it is ever old."""

    def __init__(self, folder: Path | None, line: int) -> None:
        self._folder = folder
        self._line = line

    @classmethod
    def from_function(cls, function: Callable[..., Any], _: str) -> _Locator:
        return cls(_folder(Path(function.__code__.co_filename)), function.__code__.co_firstlineno)

    def ensure_cache_path(self) -> None:
        """Nothing to do: the folder was made when the function was."""

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return ""

    def get_disambiguator(self) -> str:
        return str(self._line)


class _Kept(CompileResultCacheImpl):
    _locator_classes = [_Locator]  # noqa: RUF012 - as numba has it


class _Cache(FunctionCache):
    """Keeps a function's code. What cannot be kept or read, on a full disk say, the next process compiles again.

    Of processes that find a function missing at the same time one compiles, and the others wait and read. They never
    wait in a circle: whoever holds a function and waits for another is compiling a caller of that.
    """

    _impl_class = _Kept

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        self._turn = ExitStack()
        """Held from a miss until the code is kept. numba lets one thread at a time compile."""
        self._turn_name = f"{function.__qualname__}-{function.__code__.co_firstlineno}.turn"

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        if found := self._load(sig, target_context):
            return found
        self._turn.close()  # of a compilation that failed
        with suppress(OSError):
            self._turn.enter_context(_locked(self.cache_path, fcntl.LOCK_EX, self._turn_name))
        if found := self._load(sig, target_context):
            self._turn.close()
        return found

    def _load(self, sig: Any, target_context: Any) -> Any:
        with suppress(OSError), _locked(self.cache_path, fcntl.LOCK_SH):
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]

    def save_overload(self, sig: Any, data: Any) -> None:
        with self._turn, suppress(OSError), _locked(self.cache_path, fcntl.LOCK_EX):
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]


def _compile(function: FunctionT, *, forceinline: bool) -> FunctionT:
    dispatcher: Any = njit(nogil=True, error_model="numpy", forceinline=forceinline)(function)
    if _folder(Path(function.__code__.co_filename)) is not None:
        # What `enable_caching` does, which knows only numba's own places.
        dispatcher._cache = _Cache(function)  # noqa: SLF001 - there is no other way in
    return cast("FunctionT", dispatcher)


def compiled(function: FunctionT) -> FunctionT:
    """Compile a function of numbers and arrays at its first call.

    Its machine code is kept, so only the first run pays for it. Numbers behave as in C: no division raises.
    """
    return _compile(function, forceinline=False)


def inlined(function: FunctionT) -> FunctionT:
    """Compile a function that becomes part of each compiled function that calls it.

    A call of its own would count references to every array that it is given, which takes longer than a few sums.
    """
    return _compile(function, forceinline=True)
