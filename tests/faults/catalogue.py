"""Every fault, and those of the short set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faults.children import CHILDREN
from faults.faults import PROCESSES
from faults.inputs import INPUTS
from faults.outages import OUTAGES
from faults.replays import REPLAYS

if TYPE_CHECKING:
    from faults.harness import Fault

FAULTS: dict[str, Fault] = {fault.name: fault for fault in (*PROCESSES, *OUTAGES, *INPUTS, *CHILDREN, *REPLAYS)}
