// Opens mesh files with programs of the web: three.js's loaders, niivue's MZ3 reader, Khronos's glTF validator.
// node read.mjs FOLDER: prints one JSON line for each file and program.
import fs from 'node:fs'
import path from 'node:path'

globalThis.self = globalThis // three.js's loaders ask for it
const THREE = await import('three')
const { GLTFLoader } = await import('three/examples/jsm/loaders/GLTFLoader.js')
const { MeshoptDecoder } = await import('three/examples/jsm/libs/meshopt_decoder.module.js')
const { STLLoader } = await import('three/examples/jsm/loaders/STLLoader.js')
const { PLYLoader } = await import('three/examples/jsm/loaders/PLYLoader.js')
const { OBJLoader } = await import('three/examples/jsm/loaders/OBJLoader.js')
const { NVMeshLoaders } = await import('@niivue/niivue')
const { default: validator } = await import('gltf-validator')
await MeshoptDecoder.ready

function bytes (file) {
  const body = fs.readFileSync(file)
  return body.buffer.slice(body.byteOffset, body.byteOffset + body.byteLength)
}

// Triangles and enclosed volume in cubic units of the file.
function measure (position, index, matrix) {
  const corners = [new THREE.Vector3(), new THREE.Vector3(), new THREE.Vector3()]
  const count = index ? index.count : position.count
  let volume = 0
  for (let i = 0; i < count; i += 3) {
    corners.forEach((corner, k) => {
      corner.fromBufferAttribute(position, index ? index.getX(i + k) : i + k)
      if (matrix) corner.applyMatrix4(matrix)
    })
    volume += corners[0].dot(corners[1].cross(corners[2])) / 6
  }
  return [count / 3, volume]
}

async function scene (file) {
  const loader = new GLTFLoader().setMeshoptDecoder(MeshoptDecoder)
  const gltf = await new Promise((resolve, reject) => loader.parse(bytes(file), '', resolve, reject))
  gltf.scene.updateMatrixWorld(true)
  const found = {}
  gltf.scene.traverse((node) => {
    if (!node.isMesh) return
    const [triangles, metres] = measure(node.geometry.attributes.position, node.geometry.index, node.matrixWorld)
    const coloured = Boolean(node.material.color) && node.material.name === node.name
    found[node.name] = [triangles, metres * 1e6, coloured]
  })
  return found
}

async function single (geometry, name, coloured) {
  const [triangles, volume] = measure(geometry.attributes.position, geometry.index)
  return { [name]: [triangles, volume / 1000, coloured] }
}

const readers = {
  '.stl': ['three.js STLLoader', async (file, name) => single(new STLLoader().parse(bytes(file)), name, true)],
  '.ply': ['three.js PLYLoader', async (file, name) => {
    const geometry = new PLYLoader().parse(bytes(file))
    return single(geometry, name, Boolean(geometry.attributes.color))
  }],
  '.obj': ['three.js OBJLoader', async (file, name) => {
    const mesh = new OBJLoader().parse(fs.readFileSync(file, 'utf8')).children[0]
    return single(mesh.geometry, name, mesh.material.name === name)
  }],
  '.glb': ['three.js GLTFLoader', scene],
  '.mz3': ['niivue', async (file, name) => {
    const mesh = await NVMeshLoaders.readMZ3(bytes(file))
    const position = new THREE.BufferAttribute(mesh.positions, 3)
    const index = new THREE.BufferAttribute(mesh.indices, 1)
    const [triangles, volume] = measure(position, index)
    return { [name]: [triangles, volume / 1000, mesh.colors?.length === mesh.positions.length] }
  }]
}

const folder = process.argv[2]
for (const entry of fs.readdirSync(folder).sort()) {
  const file = path.join(folder, entry)
  const ending = path.extname(entry)
  if (!(ending in readers)) continue
  const [program, read] = readers[ending]
  const segments = await read(file, path.basename(entry, ending))
  console.log(JSON.stringify({ program, file: entry, segments }))
  if (ending !== '.glb') continue
  const { issues } = await validator.validateBytes(new Uint8Array(bytes(file)))
  const messages = issues.messages.filter((each) => each.severity < 2).map((each) => each.message)
  console.log(JSON.stringify({ program: 'gltf-validator', file: entry, messages }))
}
