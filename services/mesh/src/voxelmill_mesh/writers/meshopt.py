"""The packed streams of the glTF extension EXT_meshopt_compression, written by the extension's text.

Mode ATTRIBUTES (0xa0): the bytes of vertices, column by column, as differences to the vertex before, 16 at a time in 0,
2, 4 or 8 bits each. Mode TRIANGLES (0xe1): one byte for each triangle that says which of the last edges it shares and
what its third vertex is; what does not fit follows in a second part. Filter OCTAHEDRAL: unit vectors as two bytes.

Source: https://github.com/KhronosGroup/glTF/tree/main/extensions/2.0/Vendor/EXT_meshopt_compression
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from voxelmill_mesh.compiled import compiled

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from voxelmill_mesh.compiled import Array

_ATTRIBUTES = 0xA0
_TRIANGLES = 0xE1

_GROUP = 16
_BLOCK_BYTES = 8192
_BLOCK_ELEMENTS = 256
_TAIL = 32

_PAIRS = np.array(
    [0x00, 0x76, 0x87, 0x56, 0x67, 0x78, 0xA9, 0x86, 0x65, 0x89, 0x68, 0x98, 0x01, 0x69, 0x00, 0x00], np.uint8
)
"""The second and third vertex of triangles that share no edge, in the order of how often they occur; the last two
entries cannot be named."""


@compiled
def _write_group(deltas: Array, out: Array, end: int) -> tuple[int, int]:
    """Write 16 differences with the fewest bytes; return the code of the way, and where they end."""
    largest = 0
    over2 = 0
    over4 = 0
    for value in deltas:
        largest = max(largest, value)
        over2 += value >= 3
        over4 += value >= 15
    if largest == 0:
        return 0, end
    size2 = 4 + over2
    size4 = 8 + over4
    if size2 >= _GROUP and size4 >= _GROUP:
        for i in range(_GROUP):
            out[end + i] = deltas[i]
        return 3, end + _GROUP
    code, bits = (1, 2) if size2 <= size4 else (2, 4)
    escape = (1 << bits) - 1
    each = 8 // bits
    for first in range(0, _GROUP, each):
        byte = 0
        for i in range(each):
            byte = byte << bits | min(deltas[first + i], escape)
        out[end] = byte
        end += 1
    for i in range(_GROUP):
        if deltas[i] >= escape:
            out[end] = deltas[i]
            end += 1
    return code, end


@compiled
def _write_attributes(vertices: Array, out: Array) -> Any:
    count, stride = vertices.shape
    block = min(_BLOCK_BYTES // stride & ~15, _BLOCK_ELEMENTS)
    before = vertices[0].copy()
    deltas = np.zeros(_BLOCK_ELEMENTS, np.int32)
    out[0] = _ATTRIBUTES
    end = 1
    for start in range(0, count, block):
        size = min(block, count - start)
        groups = (size + _GROUP - 1) // _GROUP
        for column in range(stride):
            deltas[size : groups * _GROUP] = 0
            last = np.int32(before[column])
            for i in range(size):
                value = np.int32(vertices[start + i, column])
                delta = (value - last) & 255
                deltas[i] = (delta << 1 & 255) ^ (255 if delta & 128 else 0)  # 0, -1, 1, -2 … as 0, 1, 2, 3 …
                last = value
            before[column] = last
            header = end
            end += (groups + 3) // 4
            out[header:end] = 0
            for group in range(groups):
                code, end = _write_group(deltas[group * _GROUP : (group + 1) * _GROUP], out, end)
                out[header + group // 4] |= code << 2 * (group % 4)
    padding = max(_TAIL - stride, 0)
    out[end : end + padding] = 0
    end += padding
    out[end : end + stride] = vertices[0]
    return end + stride


def encode_attributes(vertices: NDArray[Any]) -> NDArray[np.uint8]:
    """Return vertices, (n, k) of any type, as a stream of mode ATTRIBUTES.

    Raises
    ------
    ValueError
        If there is no vertex, or one does not take a multiple of 4 bytes, 256 at most.
    """
    count, stride = len(vertices), vertices.shape[1] * vertices.itemsize
    if not count or stride % 4 or not 4 <= stride <= 256:
        raise ValueError(f"{count} vertices of {stride} bytes cannot be packed")
    rows = np.ascontiguousarray(vertices).view(np.uint8).reshape(count, stride)
    # A group never takes more than 16 bytes; a block's column has 4 bytes of codes at most.
    room = 1 + stride * (-(-count // 16) * (_GROUP + 4)) + _TAIL + stride
    out = np.empty(room, np.uint8)
    return out[: _write_attributes(rows, out)]


# What a decoder remembers, and so the encoder: the last 16 edges and vertices in rings, whose last row counts what was
# put in; the next vertex that no triangle has used (FRESH) and the last that was written as a difference (LAST).
_COUNT = 16
_FRESH, _LAST = 0, 1


@compiled
def _put_index(out: Array, end: int, index: int, known: Array) -> int:
    """Write the difference to the last number written, seven bits to a byte, lowest first; return where it ends."""
    delta = np.int64(index) - known[_LAST]
    rest = delta << 1 ^ delta >> 63
    while rest > 127:
        out[end] = rest & 127 | 128
        end += 1
        rest >>= 7
    out[end] = rest
    known[_LAST] = index
    return end + 1


@compiled
def _put_vertex(vertices: Array, vertex: int) -> None:
    vertices[vertices[_COUNT] & 15] = vertex
    vertices[_COUNT] += 1


@compiled
def _put_edge(edges: Array, start: int, stop: int) -> None:
    place = edges[_COUNT, 0] & 15
    edges[place, 0] = start
    edges[place, 1] = stop
    edges[_COUNT, 0] += 1


@compiled
def _age(vertices: Array, vertex: int) -> int:
    """Return how long ago a vertex was remembered, 0 for the last, or -1."""
    for age in range(16):
        if vertices[(vertices[_COUNT] - 1 - age) & 15] == vertex:
            return age
    return -1


@compiled
def _shared_edge(edges: Array, corners: Array) -> tuple[int, int]:
    """Return how long ago an edge of a triangle was remembered, or -1, and the corner where it starts."""
    for age in range(15):
        place = (edges[_COUNT, 0] - 1 - age) & 15
        for k in range(3):
            if edges[place, 0] == corners[k] and edges[place, 1] == corners[(k + 1) % 3]:
                return age, k
    return -1, 0


@compiled
def _write_neighbour(edge: int, third: int, vertices: Array, known: Array, out: Array, code: int, end: int) -> int:
    """Write a triangle that shares an edge: which, and what its third vertex is; return where the second part ends."""
    age = _age(vertices, third)
    if 1 <= age < 13:
        out[code] = edge << 4 | age
        return end
    if third == known[_FRESH]:
        known[_FRESH] += 1
        out[code] = edge << 4
    elif abs(third - known[_LAST]) == 1:
        out[code] = edge << 4 | (13 if third < known[_LAST] else 14)
        known[_LAST] = third
    else:
        out[code] = edge << 4 | 15
        end = _put_index(out, end, third, known)
    _put_vertex(vertices, third)
    return end


@compiled
def _corner_code(vertices: Array, known: Array, vertex: int) -> int:
    """Return what the second or third vertex of a free triangle is: fresh 0, remembered 1 to 14, neither 15."""
    age = _age(vertices, vertex)
    if 0 <= age < 14:
        return age + 1
    if vertex == known[_FRESH]:
        known[_FRESH] += 1
        return 0
    return 15


@compiled
def _named(pairs: Array, codes: Array) -> int:
    """Return which pair of the table the second and third vertex are, or -1: none, or the first is not fresh."""
    if codes[0] == 0:
        for i in range(14):
            if pairs[i] == codes[1] << 4 | codes[2]:
                return i
    return -1


@compiled
def _write_free(corners: Array, vertices: Array, known: Array, pairs: Array, out: Array, code: int, end: int) -> int:
    """Write a triangle that shares no edge; return where the second part ends."""
    codes = np.empty(3, np.int64)
    codes[0] = 0 if corners[0] == known[_FRESH] else 15
    if codes[0] == 0:
        known[_FRESH] += 1
    for k in (1, 2):
        codes[k] = _corner_code(vertices, known, corners[k])
    named = _named(pairs, codes)
    if named >= 0:
        out[code] = 0xF0 | named
    else:
        out[code] = 0xFE | codes[0] & 1
        out[end] = codes[1] << 4 | codes[2]
        end += 1
    for k in range(3):
        if codes[k] == 15:
            end = _put_index(out, end, corners[k], known)
    for k in range(3):
        if codes[k] in {0, 15}:
            _put_vertex(vertices, corners[k])
    return end


@compiled
def _write_triangles(faces: Array, pairs: Array, out: Array) -> Any:
    edges = np.full((17, 2), -1, np.int64)
    edges[_COUNT] = 0
    vertices = np.full(17, -1, np.int64)
    vertices[_COUNT] = 0
    known = np.zeros(2, np.int64)
    corners = np.empty(3, np.int64)
    out[0] = _TRIANGLES
    end = 1 + faces.shape[0]
    for t in range(faces.shape[0]):
        edge, first = _shared_edge(edges, faces[t])
        if edge < 0:
            first = 0
            for k in (1, 2):
                if faces[t, k] == known[_FRESH]:
                    first = k
        for k in range(3):
            corners[k] = faces[t, (first + k) % 3]
        if edge < 0:
            end = _write_free(corners, vertices, known, pairs, out, 1 + t, end)
            _put_edge(edges, corners[1], corners[0])
        else:
            end = _write_neighbour(edge, corners[2], vertices, known, out, 1 + t, end)
        _put_edge(edges, corners[2], corners[1])
        _put_edge(edges, corners[0], corners[2])
    out[end : end + 16] = pairs
    return end + 16


def encode_triangles(faces: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Return faces, (m, 3), as a stream of mode TRIANGLES.

    What is read back has the same triangles in the same order, but corners may be turned in place. The stream is short
    if the faces have the order of `ordering.walk`.
    """
    # At most a byte of code, one of a pair and three numbers of five bytes for each triangle.
    out = np.empty(1 + 17 * len(faces) + 16, np.uint8)
    return out[: _write_triangles(faces, _PAIRS, out)]


def octahedral(normals: NDArray[np.float32]) -> NDArray[np.int8]:
    """Return unit vectors, (n, 3), for the filter OCTAHEDRAL: (n, 4) int8, of which two differ from vertex to vertex.

    A vector is projected onto the octahedron |x| + |y| + |z| = 1, whose lower half is folded over the upper one
    (Q. Meyer et al., "On floating-point normal vectors", EGSR 2010).
    """
    flat = normals[:, :2] / np.abs(normals).sum(axis=1, keepdims=True)
    folded = (1 - np.abs(flat[:, ::-1])) * np.where(flat >= 0, np.float32(1), np.float32(-1))
    result = np.zeros((len(normals), 4), np.int8)
    result[:, :2] = np.rint(np.where(normals[:, 2:] >= 0, flat, folded) * 127)
    result[:, 2] = 127
    return result
