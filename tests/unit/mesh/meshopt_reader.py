"""A reader of EXT_meshopt_compression's streams, written by the extension's text, one byte at a time."""

from __future__ import annotations

import numpy as np


def read_attributes(stream: bytes, count: int, stride: int) -> np.ndarray:
    """Return vertices, (count, stride) uint8, of a stream of mode ATTRIBUTES, version 0."""
    assert stream[0] == 0xA0
    rows = np.zeros((count, stride), np.uint8)
    before = bytearray(stream[-stride:])
    place = 1
    block = min((8192 // stride) & ~15, 256)
    for start in range(0, count, block):
        size = min(block, count - start)
        groups = (size + 15) // 16
        for column in range(stride):
            codes = stream[place : place + (groups + 3) // 4]
            place += len(codes)
            for group in range(groups):
                deltas, place = _read_group(stream, place, codes[group // 4] >> 2 * (group % 4) & 3)
                for i, delta in enumerate(deltas):
                    before[column] = (before[column] + (-(delta + 1 >> 1) if delta & 1 else delta >> 1)) & 255
                    if group * 16 + i < size:
                        rows[start + group * 16 + i, column] = before[column]
    assert len(stream) - place == max(stride, 32), "the tail"
    return rows


def _read_group(stream: bytes, place: int, code: int) -> tuple[list[int], int]:
    if code == 0:
        return [0] * 16, place
    if code == 3:
        return list(stream[place : place + 16]), place + 16
    bits = 2 * code
    each = 8 // bits
    escape = (1 << bits) - 1
    packed = stream[place : place + 16 // each]
    place += len(packed)
    deltas = [packed[i // each] >> bits * (each - 1 - i % each) & escape for i in range(16)]
    for i, delta in enumerate(deltas):
        if delta == escape:
            deltas[i] = stream[place]
            place += 1
    return deltas, place


class _Triangles:
    """What the decoder of mode TRIANGLES remembers."""

    def __init__(self, stream: bytes, place: int) -> None:
        self.stream, self.place = stream, place
        self.edges: list[tuple[int, int]] = []
        self.vertices: list[int] = []
        self.fresh = self.last = 0

    def next_fresh(self) -> int:
        self.fresh += 1
        return self.fresh - 1

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.stream[self.place]
            self.place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        self.last += -(value + 1 >> 1) if value & 1 else value >> 1
        return self.last

    def neighbour(self, code: int) -> tuple[int, int, int]:
        a, b = self.edges[-1 - (code >> 4)]
        kind = code & 15
        if 1 <= kind <= 12:
            c = self.vertices[-1 - kind]
        else:
            if kind == 0:
                c = self.next_fresh()
            elif kind == 15:
                c = self.number()
            else:
                self.last = c = self.last + (1 if kind == 14 else -1)
            self.vertices.append(c)
        self.edges += [(c, b), (a, c)]
        return a, b, c

    def free(self, code: int, pairs: bytes) -> tuple[int, int, int]:
        if code < 0xFE:
            kinds = [0, pairs[code & 15] >> 4, pairs[code & 15] & 15]
        else:
            pair = self.stream[self.place]
            self.place += 1
            assert pair or code == 0xFE, "a reset"
            kinds = [0 if code == 0xFE else 15, pair >> 4, pair & 15]
        corners = [self.next_fresh() if kind == 0 else self.vertices[-kind] if kind < 15 else -1 for kind in kinds]
        corners = [self.number() if kind == 15 else corner for kind, corner in zip(kinds, corners, strict=True)]
        self.vertices += [corner for kind, corner in zip(kinds, corners, strict=True) if kind in {0, 15}]
        a, b, c = corners
        self.edges += [(b, a), (c, b), (a, c)]
        return a, b, c


def read_triangles(stream: bytes, count: int) -> np.ndarray:
    """Return faces, (count, 3), of a stream of mode TRIANGLES, version 1."""
    assert stream[0] == 0xE1
    pairs = stream[-16:]
    state = _Triangles(stream, 1 + count)
    codes = stream[1 : 1 + count]
    faces = [state.neighbour(code) if code < 0xF0 else state.free(code, pairs) for code in codes]
    assert state.place == len(stream) - 16, "all of the second part was read"
    return np.array(faces, np.int64).reshape(-1, 3)


def unfold(packed: np.ndarray) -> np.ndarray:
    """Undo the filter OCTAHEDRAL: unit vectors, (n, 3), of (n, 4) int8."""
    x, y = packed[:, 0] / packed[:, 2], packed[:, 1] / packed[:, 2]
    z = 1 - np.abs(x) - np.abs(y)
    fold = np.minimum(z, 0)
    vectors = np.column_stack([x + np.where(x >= 0, fold, -fold), y + np.where(y >= 0, fold, -fold), z])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
