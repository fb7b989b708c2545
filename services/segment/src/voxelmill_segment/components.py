"""How many parts each segment has, and how large the largest is: connected components of all segments together.

Rows are taken as runs of one label, and only two slices of runs are held at a time: a component that does not reach
the slice at hand is finished, counted and forgotten. So the memory is that of two slices, whatever the volume is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    import numpy.typing as npt

    Counts = npt.NDArray[np.int64]
    Ids = npt.NDArray[np.int32]
    Runs = tuple[Ids, Ids, npt.NDArray[np.uint8], Ids]


def find_components(labels: npt.NDArray[np.uint8]) -> tuple[Counts, Counts]:
    """Count the components of every label. Voxels that touch by a face, an edge or a corner are connected (26).

    Parameters
    ----------
    labels
        uint8 (slices, rows, columns); 0 is no label.

    Returns
    -------
    tuple
        int64 of 256 each: how many components a label has, and how many voxels the largest of them has.
    """
    components, largest = np.zeros(256, np.int64), np.zeros(256, np.int64)
    _walk(np.ascontiguousarray(labels), components, largest)
    return components, largest


@njit(cache=True, nogil=True)
def _walk(labels: npt.NDArray[np.uint8], components: Counts, largest: Counts) -> None:
    slices, rows, columns = labels.shape
    most = rows * columns
    # Two sets of runs, of the slice at hand and of the one before, that change places: first and last column, label,
    # component. `index` says where the runs of a row begin.
    runs = (
        np.empty((2, most), np.int32),
        np.empty((2, most), np.int32),
        np.empty((2, most), np.uint8),
        np.empty((2, most), np.int32),
    )
    index = np.zeros((2, rows + 1), np.int64)
    # Components, those that the slice before has handed on first; each new run begins one of its own.
    parent, of, size = np.empty(2 * most, np.int32), np.empty(2 * most, np.uint8), np.empty(2 * most, np.int64)
    renamed = np.empty(2 * most, np.int32)
    live = 0
    for k in range(slices):
        now, before = k % 2, 1 - k % 2
        known = live
        run = 0
        for row in range(rows):
            begin = index[now, row] = run
            run = _read_row(labels[k, row], runs, now, run, known - begin)
            for one in range(begin, run):
                parent[known], of[known] = known, runs[2][now, one]
                size[known] = runs[1][now, one] - runs[0][now, one] + 1
                known += 1
            if row:
                _join(runs, parent, size, (now, begin, run), (now, index[now, row - 1], begin))
            if k:
                for near in range(max(0, row - 1), min(rows, row + 2)):
                    _join(runs, parent, size, (now, begin, run), (before, index[before, near], index[before, near + 1]))
        index[now, rows] = run
        live = _hand_on(runs[3][now, :run], parent[:known], of, size, renamed, components, largest)
    for one in range(live):
        _settle(of[one], size[one], components, largest)


@njit(cache=True, nogil=True)
def _read_row(row: npt.NDArray[np.uint8], runs: Runs, now: int, run: int, ahead: int) -> int:
    """Add the runs of a row to those of its slice; a run's component is its own number and `ahead`."""
    first, last, label, component = runs
    column = 0
    while column < len(row):
        number, start = row[column], column
        column += 1
        while column < len(row) and row[column] == number:
            column += 1
        if number:
            first[now, run], last[now, run], label[now, run] = start, column - 1, number
            component[now, run] = run + ahead
            run += 1
    return run


@njit(cache=True, nogil=True)
def _join(runs: Runs, parent: Ids, size: Counts, here: tuple[int, int, int], there: tuple[int, int, int]) -> None:
    """Unite the runs of a row with those of a row beside it that touch them and have the same label.

    A row is the set that it lies in, its first run, and the one after its last.
    """
    first, last, label, component = runs
    mine, begin, end = here
    theirs, nearest, beyond = there
    for run in range(begin, end):
        while nearest < beyond and last[theirs, nearest] + 1 < first[mine, run]:
            nearest += 1
        other = nearest
        while other < beyond and first[theirs, other] <= last[mine, run] + 1:
            if label[theirs, other] == label[mine, run]:
                one, two = _root(parent, component[mine, run]), _root(parent, component[theirs, other])
                if one != two:
                    keep, drop = min(one, two), max(one, two)
                    parent[drop] = keep
                    size[keep] += size[drop]
            other += 1


@njit(cache=True, nogil=True)
def _hand_on(
    component: Ids,
    parent: Ids,
    of: npt.NDArray[np.uint8],
    size: Counts,
    renamed: Ids,
    components: Counts,
    largest: Counts,
) -> int:
    """Settle what the slice does not reach; number the others from 0 for the slice after it, and say how many."""
    reached = np.zeros(len(parent), np.bool_)
    for run in range(len(component)):
        component[run] = _root(parent, component[run])
        reached[component[run]] = True
    live = 0
    for one in range(len(parent)):
        if reached[one]:
            renamed[one] = live
            of[live], size[live] = of[one], size[one]
            live += 1
        elif parent[one] == one:
            _settle(of[one], size[one], components, largest)
    for run in range(len(component)):
        component[run] = renamed[component[run]]
    for one in range(live):
        parent[one] = one
    return live


@njit(cache=True, nogil=True)
def _root(parent: Ids, one: int) -> int:
    while parent[one] != one:
        parent[one] = parent[parent[one]]
        one = parent[one]
    return one


@njit(cache=True, nogil=True)
def _settle(number: int, voxels: int, components: Counts, largest: Counts) -> None:
    components[number] += 1
    largest[number] = max(largest[number], voxels)
