"""How the inner loops are compiled: once, kept on disk, without Python's lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from numba import njit
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable

FunctionT = TypeVar("FunctionT", bound="Callable[..., Any]")

Array: TypeAlias = NDArray[Any]
"""An array inside compiled code, whose elements numba types."""


def compiled(function: FunctionT) -> FunctionT:
    """Compile a function of numbers and arrays at its first call.

    The machine code is kept beside the source, or where NUMBA_CACHE_DIR says, so only the first run pays for it.
    Numbers behave as in C: no division raises.
    """
    return cast("FunctionT", njit(cache=True, nogil=True, error_model="numpy")(function))
