"""Writing plain data as readable YAML 1.2: blocks, and double-quoted strings wherever a bare word could be misread."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

Plain: TypeAlias = "Mapping[str, Plain] | Sequence[Plain] | str | int | float | bool | None"

_WORD = re.compile(r"[$A-Za-z][A-Za-z0-9._/-]*([ ,]+[A-Za-z0-9._/-]+)*")
# YAML 1.1 readers take these for booleans and nulls.
_MISREAD = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def to_yaml(document: Plain) -> str:
    """Write a document of mappings, sequences, strings, numbers, booleans and None.

    JSON's strings are YAML's double-quoted strings (YAML 1.2, 7.3.1), so nothing needs escaping rules of its own.
    """
    return "\n".join(_block(document, 0)) + "\n"


def _block(value: Plain, depth: int) -> Iterator[str]:
    pad = "  " * depth
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _entry(f"{pad}{_scalar(key)}:", item, depth)
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        for item in value:
            if _is_block(item):
                # The first line of the item stands behind its dash.
                first, *rest = _block(item, depth + 1)
                yield f"{pad}- {first.removeprefix(pad + '  ')}"
                yield from rest
            else:
                yield f"{pad}- {_scalar(item)}"
    else:
        yield pad + _scalar(value)


def _entry(head: str, value: Plain, depth: int) -> Iterator[str]:
    if _is_block(value):
        yield head
        yield from _block(value, depth + 1)
    else:
        yield f"{head} {_scalar(value)}"


def _is_block(value: Plain) -> bool:
    return isinstance(value, (Mapping, Sequence)) and not isinstance(value, str) and len(value) > 0


def _scalar(value: Plain) -> str:
    if isinstance(value, str) and _WORD.fullmatch(value) and value.lower() not in _MISREAD:
        return value
    return json.dumps(value, ensure_ascii=False)
