/** The canvas: niivue with three slices and one 3-D view. This module is loaded when a series is opened. */

import { DRAG_MODE, Niivue, NVImage, NVMesh, SLICE_TYPE } from "@niivue/niivue";

import type { Segment } from "../types";
import { download } from "./download";
import { SURFACE_SHADER } from "./surface_shader";
import { readScene, type Surface } from "./scene";

export type Layout = "all" | "axial" | "coronal" | "sagittal" | "render";

export interface Look {
  visible: boolean;
  opacity: number;
}

/** Where the cross-hair is: RAS in mm, the voxel's value, and the number of the segment there (0: none). */
export interface Spot {
  mm: [number, number, number];
  value: number;
  segment: number;
}

/** What can be loaded of a surface in one file each, the best first. */
export const MESH_FORMATS = ["mz3", "stl", "obj", "ply"] as const;

const TYPES: Record<Exclude<Layout, "all">, SLICE_TYPE> = {
  axial: SLICE_TYPE.AXIAL,
  coronal: SLICE_TYPE.CORONAL,
  sagittal: SLICE_TYPE.SAGITTAL,
  render: SLICE_TYPE.RENDER,
};
/** The same places as the pictures that are shown before. */
const QUARTERS: { sliceType: SLICE_TYPE; position: [number, number, number, number] }[] = [
  { sliceType: SLICE_TYPE.AXIAL, position: [0, 0, 0.5, 0.5] },
  { sliceType: SLICE_TYPE.RENDER, position: [0.5, 0, 0.5, 0.5] },
  { sliceType: SLICE_TYPE.CORONAL, position: [0, 0.5, 0.5, 0.5] },
  { sliceType: SLICE_TYPE.SAGITTAL, position: [0.5, 0.5, 0.5, 0.5] },
];
const FIRST_AZIMUTH = 200; // niivue's degrees: the patient from the front, a little from the left
const FIRST_ELEVATION = 12;
const FIRST_SCALE = 1.15;
const TURN_DEGREES = 8;

/** niivue draws the volume into the 3-D view too: there it would hide the surfaces, and casting its rays takes long. */
class SliceVolume extends Niivue {
  castRays = false;

  override drawImage3D(...given: Parameters<Niivue["drawImage3D"]>): void {
    if (this.castRays) {
      super.drawImage3D(...given);
    }
  }
}

export class Viewer {
  private readonly niivue: SliceVolume;
  private readonly surfaces = new Map<string, NVMesh>();
  private labels: NVImage | null = null;
  private volume: NVImage | null = null;
  private segments: Segment[] = [];
  private looks = new Map<number, Look>();
  private window: { low: number; high: number } | null = null;
  private overlay = 0.35;
  private frame = 0;
  private shader = 0;
  private attached = false;

  private constructor(
    private readonly canvas: HTMLCanvasElement,
    whereabouts: (spot: Spot) => void,
    private readonly signal: AbortSignal,
  ) {
    this.niivue = new SliceVolume({
      backColor: [0, 0, 0, 1],
      crosshairColor: [0.39, 0.72, 0.79, 0.55],
      crosshairWidth: 1,
      crosshairWidthUnit: "mm",
      crosshairGap: 12,
      fontColor: [0.72, 0.77, 0.8, 1],
      fontMinPx: 11,
      fontSizeScaling: 0.2,
      dragAndDropEnabled: false,
      isColorbar: false,
      isOrientCube: false,
      isRadiologicalConvention: true,
      sagittalNoseLeft: true,
      showAllOrientationMarkers: true,
      loadingText: "",
      logLevel: "error",
      meshThicknessOn2D: 0,
      show3Dcrosshair: false,
      dragMode: DRAG_MODE.contrast,
      tileMargin: 0,
      clipPlaneHotKey: "",
      viewModeHotKey: "",
      cycleClipPlaneHotKey: "",
    });
    this.niivue.onLocationChange = (found): void => {
      const { mm, values } = found as { mm: number[]; values: { value: number }[] };
      whereabouts({
        mm: [mm[0] ?? 0, mm[1] ?? 0, mm[2] ?? 0],
        value: values[0]?.value ?? 0,
        segment: this.labels ? Math.round(values[1]?.value ?? 0) : 0,
      });
    };
    canvas.addEventListener("keydown", this.keyed, { capture: true, signal });
    signal.addEventListener("abort", () => {
      if (this.attached) {
        this.end(); // before that niivue goes on compiling, and would complain that the context is gone
      }
    });
  }

  /** Start on a canvas. It ends, and gives the graphics memory back, when the signal aborts. */
  static async start(canvas: HTMLCanvasElement, whereabouts: (spot: Spot) => void, signal: AbortSignal): Promise<Viewer> {
    const viewer = new Viewer(canvas, whereabouts, signal);
    await viewer.niivue.attachToCanvas(canvas, true);
    viewer.attached = true;
    if (signal.aborted) {
      viewer.end();
      signal.throwIfAborted();
    }
    viewer.shader = viewer.niivue.setCustomMeshShader(SURFACE_SHADER, "Surface");
    viewer.niivue.setCustomLayout(QUARTERS);
    viewer.niivue.setRenderAzimuthElevation(FIRST_AZIMUTH, FIRST_ELEVATION);
    viewer.niivue.setScale(FIRST_SCALE);
    return viewer;
  }

  /** Show a volume, in place of the one that is shown. */
  async showVolume(url: string, progress: (received: number) => void): Promise<void> {
    const image = await this.read(url, progress);
    if (this.window) {
      image.cal_min = this.window.low;
      image.cal_max = this.window.high;
    }
    this.stack(image, this.labels);
  }

  /** Show a label map over the volume, in the segments' colours. */
  async showLabels(url: string, segments: Segment[], progress: (received: number) => void): Promise<void> {
    const image = await this.read(url, progress);
    this.segments = segments;
    image.opacity = this.overlay;
    image.setColormapLabel(this.table());
    this.stack(this.volume, image);
  }

  /** Show the surfaces of a scene, all in one file. */
  async showScene(url: string, segments: Segment[], progress: (received: number) => void): Promise<void> {
    const scene = await readScene(await download(url, this.signal, progress));
    this.segments = segments;
    this.put(
      scene.flatMap((surface) => {
        const segment = segments.find((one) => one.name === surface.name);
        return segment ? [[segment, surfaceMesh(surface, segment, this.niivue.gl)] as const] : [];
      }),
    );
  }

  /** Show surfaces that lie in a file each. */
  async showMeshes(segments: Segment[], progress: (received: number) => void): Promise<void> {
    this.segments = segments;
    let before = 0;
    const read: [Segment, NVMesh][] = [];
    for (const segment of segments) {
      const format = MESH_FORMATS.find((one) => segment.meshes[one]);
      const url = format && segment.meshes[format];
      if (!format || !url) {
        continue;
      }
      const buffer = await download(url, this.signal, (received) => progress(before + received));
      before += buffer.byteLength;
      const mesh = await NVMesh.readMesh(buffer, `${segment.name}.${format}`, this.niivue.gl, 1, colourOf(segment));
      if (format !== "mz3") {
        turnToRas(mesh, this.niivue.gl); // the other formats are in LPS
      }
      read.push([segment, mesh]);
    }
    this.put(read);
  }

  /** Without surfaces the 3-D view shows the volume itself. */
  showRays(): void {
    this.niivue.castRays = true;
    this.redraw();
  }

  setWindow(window: { low: number; high: number } | null): void {
    this.window = window;
    if (this.volume) {
      this.volume.cal_min = window?.low ?? this.volume.robust_min ?? 0;
      this.volume.cal_max = window?.high ?? this.volume.robust_max ?? 1;
      this.niivue.updateGLVolume();
    }
  }

  setOverlay(opacity: number): void {
    this.overlay = opacity;
    if (this.labels) {
      this.labels.opacity = opacity;
      this.redraw(true);
    }
  }

  setLayout(layout: Layout): void {
    this.niivue.setCustomLayout(layout === "all" ? QUARTERS : [{ sliceType: TYPES[layout], position: [0, 0, 1, 1] }]);
    this.redraw();
  }

  setLooks(looks: ReadonlyMap<number, Look>): void {
    this.looks = new Map(looks);
    for (const segment of this.segments) {
      const mesh = this.surfaces.get(segment.name);
      const look = this.lookOf(segment);
      if (mesh) {
        mesh.visible = look.visible;
        mesh.opacity = look.opacity;
      }
    }
    this.labels?.setColormapLabel(this.table());
    this.sort();
    this.redraw(true);
  }

  reset(): void {
    this.niivue.scene.pan2Dxyzmm = [0, 0, 0, 1];
    this.niivue.scene.crosshairPos = [0.5, 0.5, 0.5];
    this.niivue.volScaleMultiplier = FIRST_SCALE;
    this.niivue.setRenderAzimuthElevation(FIRST_AZIMUTH, FIRST_ELEVATION);
    this.setWindow(this.window);
    this.redraw();
  }

  private async read(url: string, progress: (received: number) => void): Promise<NVImage> {
    const buffer = await download(url, this.signal, progress);
    const image = await NVImage.loadFromUrl({ url: buffer, name: "image.nii.gz", colormap: "gray" });
    this.signal.throwIfAborted();
    return image;
  }

  /** Put volume and label map upon each other. `niivue.addVolume` would upload each of them to the GPU twice. */
  private stack(volume: NVImage | null, labels: NVImage | null): void {
    this.volume = volume;
    this.labels = labels;
    const images = [volume, labels].filter((image) => image !== null);
    if (volume) {
      this.niivue.volumes = images;
      this.niivue.back = volume;
      this.niivue.overlays = images.slice(1);
      this.niivue.updateGLVolume();
    }
  }

  private put(read: (readonly [Segment, NVMesh])[]): void {
    this.signal.throwIfAborted();
    for (const [segment, mesh] of read) {
      const look = this.lookOf(segment);
      mesh.visible = look.visible;
      mesh.opacity = look.opacity;
      mesh.meshShaderIndex = this.shader;
      this.surfaces.set(segment.name, mesh);
    }
    this.sort();
    if (this.volume) {
      this.niivue.updateGLVolume();
    }
    this.redraw();
  }

  /** What is clear is drawn after what is opaque, or the opaque would hide behind it. */
  private sort(): void {
    this.niivue.meshes = [...this.surfaces.values()].sort((one, other) => other.opacity - one.opacity);
  }

  private lookOf(segment: Segment): Look {
    return this.looks.get(segment.number) ?? { visible: true, opacity: segment.opacity };
  }

  private table(): Parameters<NVImage["setColormapLabel"]>[0] {
    const colours = this.segments.map(colourOf);
    return {
      R: [0, ...colours.map((colour) => colour[0] ?? 0)],
      G: [0, ...colours.map((colour) => colour[1] ?? 0)],
      B: [0, ...colours.map((colour) => colour[2] ?? 0)],
      A: [0, ...this.segments.map((segment) => (this.lookOf(segment).visible ? 255 : 0))],
      I: [0, ...this.segments.map((segment) => segment.number)],
    };
  }

  /** Draw once for however many changes, before the next frame. */
  private redraw(labels = false): void {
    const refresh = labels && this.labels !== null;
    if (this.frame && !refresh) {
      return;
    }
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      if (refresh && this.labels && this.volume) {
        this.niivue.refreshLayers(this.labels, 1);
      }
      this.niivue.drawScene();
    });
  }

  private readonly keyed = (event: KeyboardEvent): void => {
    const moves: Record<string, [number, number, number]> = {
      ArrowLeft: [1, 0, 0], // radiological: the left of the picture is the patient's right
      ArrowRight: [-1, 0, 0],
      ArrowUp: [0, 1, 0],
      ArrowDown: [0, -1, 0],
      PageUp: [0, 0, 1],
      PageDown: [0, 0, -1],
    };
    const move = moves[event.key];
    const zoom = { "+": 1.15, "-": 1 / 1.15 }[event.key];
    if (!event.altKey && !event.ctrlKey && !event.metaKey && event.key !== "Tab") {
      event.stopImmediatePropagation(); // niivue has keys of its own, among them one that shows its version
    }
    if (move && event.shiftKey) {
      const { renderAzimuth, renderElevation } = this.niivue.scene;
      this.niivue.setRenderAzimuthElevation(
        renderAzimuth + move[0] * TURN_DEGREES,
        Math.max(-90, Math.min(90, renderElevation + move[1] * TURN_DEGREES)),
      );
    } else if (move) {
      this.niivue.moveCrosshairInVox(...move);
    } else if (zoom) {
      this.niivue.setScale(this.niivue.volScaleMultiplier * zoom);
    } else {
      return;
    }
    event.preventDefault();
  };

  private end(): void {
    cancelAnimationFrame(this.frame);
    this.niivue.cleanup();
    this.canvas.getContext("webgl2")?.getExtension("WEBGL_lose_context")?.loseContext();
  }
}

function surfaceMesh(surface: Surface, segment: Segment, gl: WebGL2RenderingContext): NVMesh {
  return new NVMesh(surface.positions, surface.triangles, surface.name, colourOf(segment), 1, true, gl);
}

function turnToRas(mesh: NVMesh, gl: WebGL2RenderingContext): void {
  for (let at = 0; at < mesh.pts.length; at += 3) {
    mesh.pts[at] = -(mesh.pts[at] ?? 0);
    mesh.pts[at + 1] = -(mesh.pts[at + 1] ?? 0);
  }
  mesh.updateMesh(gl);
}

function colourOf(segment: Segment): Uint8Array {
  const value = Number.parseInt(segment.colour.slice(1), 16);
  return Uint8Array.of((value >> 16) & 255, (value >> 8) & 255, value & 255, 255);
}
