/**
 * Reading `scene-web.glb` and `scene.glb`: every segment's surface in one file, a tenth of the size of the STLs.
 *
 * Voxelmill's scenes hold one node, mesh and material for each segment (docs/meshes.md). A node's translation and scale
 * bring its 16-bit positions into the patient's millimetres (LPS); the node above them only turns the axes for viewers
 * with Y up and is left out here.
 */

import { MeshoptDecoder } from "meshoptimizer/decoder";

/** A closed surface in the axes of NIfTI: RAS, millimetres. */
export interface Surface {
  name: string;
  positions: Float32Array;
  triangles: Uint32Array;
}

interface Document {
  nodes: { name?: string; mesh?: number; translation?: number[]; scale?: number[] }[];
  meshes: { primitives: { attributes: { POSITION: number }; indices: number }[] }[];
  accessors: { bufferView: number; byteOffset?: number; componentType: number; count: number }[];
  bufferViews: View[];
}

interface View {
  byteOffset?: number;
  byteLength: number;
  byteStride?: number;
  extensions?: {
    EXT_meshopt_compression?: {
      byteOffset?: number;
      byteLength: number;
      byteStride: number;
      count: number;
      mode: string;
      filter?: string;
    };
  };
}

const MAGIC = 0x46546c67; // "glTF"
const JSON_CHUNK = 0x4e4f534a;
const UNSIGNED_INT = 5125;

/** Read the surfaces of a binary glTF file. */
export async function readScene(file: ArrayBuffer): Promise<Surface[]> {
  const { document, binary } = chunksOf(file);
  await MeshoptDecoder.ready;
  const surfaces: Surface[] = [];
  for (const node of document.nodes) {
    const primitive = node.mesh === undefined ? undefined : document.meshes[node.mesh]?.primitives[0];
    if (primitive) {
      surfaces.push({
        name: node.name ?? "",
        positions: toRas(
          lattice(document, binary, primitive.attributes.POSITION),
          node.scale ?? [1, 1, 1],
          node.translation ?? [0, 0, 0],
        ),
        triangles: indices(document, binary, primitive.indices),
      });
    }
  }
  return surfaces;
}

function chunksOf(file: ArrayBuffer): { document: Document; binary: Uint8Array } {
  const view = new DataView(file);
  if (file.byteLength < 20 || view.getUint32(0, true) !== MAGIC || view.getUint32(16, true) !== JSON_CHUNK) {
    throw new Error("the scene is no binary glTF file");
  }
  const length = view.getUint32(12, true);
  const document = JSON.parse(new TextDecoder().decode(new Uint8Array(file, 20, length))) as Document;
  return { document, binary: new Uint8Array(file, 28 + length) };
}

function bytesOf(document: Document, binary: Uint8Array, index: number): { bytes: Uint8Array; stride: number } {
  const view = document.bufferViews[index];
  if (!view) {
    throw new Error("the scene lacks a part of itself");
  }
  const packed = view.extensions?.EXT_meshopt_compression;
  if (!packed) {
    const start = view.byteOffset ?? 0;
    return { bytes: binary.subarray(start, start + view.byteLength), stride: view.byteStride ?? 0 };
  }
  const start = packed.byteOffset ?? 0;
  const bytes = new Uint8Array(packed.count * packed.byteStride);
  MeshoptDecoder.decodeGltfBuffer(
    bytes,
    packed.count,
    packed.byteStride,
    binary.subarray(start, start + packed.byteLength),
    packed.mode,
    packed.filter,
  );
  return { bytes, stride: packed.byteStride };
}

function accessor(document: Document, index: number): Document["accessors"][number] {
  const found = document.accessors[index];
  if (!found) {
    throw new Error("the scene lacks a part of itself");
  }
  return found;
}

function lattice(document: Document, binary: Uint8Array, index: number): Uint16Array {
  const { bufferView, byteOffset = 0, count } = accessor(document, index);
  const { bytes, stride } = bytesOf(document, binary, bufferView);
  const view = new DataView(bytes.buffer, bytes.byteOffset + byteOffset);
  const step = stride || 6;
  const values = new Uint16Array(3 * count);
  for (let vertex = 0; vertex < count; vertex += 1) {
    for (let axis = 0; axis < 3; axis += 1) {
      values[3 * vertex + axis] = view.getUint16(vertex * step + 2 * axis, true);
    }
  }
  return values;
}

function indices(document: Document, binary: Uint8Array, index: number): Uint32Array {
  const { bufferView, byteOffset = 0, componentType, count } = accessor(document, index);
  const { bytes } = bytesOf(document, binary, bufferView);
  const start = bytes.byteOffset + byteOffset;
  const width = componentType === UNSIGNED_INT ? 4 : 2;
  const copy = bytes.buffer.slice(start, start + width * count); // typed arrays want their own alignment
  return width === 4 ? new Uint32Array(copy) : Uint32Array.from(new Uint16Array(copy));
}

function toRas(values: Uint16Array, scale: number[], translation: number[]): Float32Array {
  const [sx = 1, sy = 1, sz = 1] = scale;
  const [tx = 0, ty = 0, tz = 0] = translation;
  const positions = new Float32Array(values.length);
  for (let at = 0; at < values.length; at += 3) {
    positions[at] = -(sx * (values[at] ?? 0) + tx);
    positions[at + 1] = -(sy * (values[at + 1] ?? 0) + ty);
    positions[at + 2] = sz * (values[at + 2] ?? 0) + tz;
  }
  return positions;
}
