"""Find the class that a model was trained with, without importing every other.

nnU-Net imports each of its trainers' modules to look for a name, among them some that need torchvision and timm:
2 to 4 s, and libraries that no network here needs. Here the module that defines the name is found by its text.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any

import nnunetv2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

_PACKAGE = "nnunetv2.training.nnUNetTrainer"
_CUSTOM = "totalsegmentator.custom_trainers"


class UnknownTrainerError(ValueError):
    """No module of nnU-Net or TotalSegmentator defines the trainer that a model names."""


@cache
def find_trainer(trainer_name: str) -> Any:
    """Return the trainer class of a name.

    Raises
    ------
    UnknownTrainerError
        If there is none.
    """
    if trainer_name == nnUNetTrainer.__name__:
        return nnUNetTrainer
    definition = re.compile(rf"^class {re.escape(trainer_name)}\(", re.MULTILINE)
    root = Path(nnunetv2.__file__).parent / "training" / "nnUNetTrainer"
    custom = importlib.util.find_spec(_CUSTOM)
    places = [
        (path, _PACKAGE + "." + ".".join(path.relative_to(root).with_suffix("").parts))
        for path in sorted(root.rglob("*.py"))
    ]
    if custom is not None and custom.origin is not None:
        places.insert(0, (Path(custom.origin), _CUSTOM))  # as TotalSegmentator looks for its own first
    for path, module in places:
        if definition.search(path.read_text(encoding="utf-8")):
            return getattr(importlib.import_module(module), trainer_name)
    raise UnknownTrainerError(f"no trainer {trainer_name} in nnU-Net or TotalSegmentator")
