/** The images of a job: its pictures at once, then the canvas over them, first with a coarse volume, then the whole one. */

import { Problem } from "../api";
import { fill, h } from "../dom";
import { bytes, hounsfield } from "../format";
import { isAbort, reason } from "../notices";
import { texts } from "../texts";
import type { Artefact, Job, Segment } from "../types";
import type { Layout, Look, Spot, Viewer } from "../viewer/niivue";
import { range, WINDOWS, type WindowName } from "../viewer/windows";

/** The picture that stands for each view until the canvas has drawn it; of several the first that is there. */
const PICTURES: Record<Exclude<Layout, "all">, string[]> = {
  axial: ["thumbnails/axial.webp", "thumbnails/preview.webp"],
  render: ["meshes/preview.png", "thumbnails/mip.webp"],
  coronal: ["thumbnails/coronal.webp"],
  sagittal: ["thumbnails/sagittal.webp"],
};
const VIEWS = Object.keys(PICTURES) as (keyof typeof PICTURES)[];
const LABELS = "segmentation/labelmap.nii.gz";
const SCENES = ["meshes/scene-web.glb", "meshes/scene.glb"];
const LONGEST_FOR_PICTURES_MS = 1500;
/** A telephone shows no more than the preview has, and its memory is small: there the whole volume is asked for. */
const SMALL_SCREEN = "(max-width: 700px)";

export class Images {
  readonly element: HTMLElement;
  private readonly canvas = h("canvas", { tabindex: 0, role: "img", "aria-label": texts.viewer.label, "aria-describedby": "keys" });
  private readonly pictures = h("div", { class: "pictures" });
  private readonly line = h("span", { class: "line", role: "status" }, texts.viewer.startingUp);
  private readonly spot = h("span", { class: "spot" });
  private readonly fullButton = h("button", { type: "button", class: "small", hidden: true }, texts.viewer.loadFull);
  private readonly overlay = h("input", { type: "range", min: 0, max: 1, step: 0.05, value: 0.35 });
  private viewer: Promise<Viewer> | null = null;
  private window: WindowName | "auto";
  private looks: ReadonlyMap<number, Look> = new Map();
  private segments: Segment[] = [];
  private layout: Layout = "all";
  private readonly started = new Set<string>();
  private work: Promise<void> = Promise.resolve();

  constructor(
    private readonly modality: string,
    private readonly signal: AbortSignal,
  ) {
    this.window = modality === "CT" ? "soft" : "auto";
    const ct = Object.keys(WINDOWS) as WindowName[];
    this.overlay.addEventListener("input", () => this.then((viewer) => viewer.setOverlay(this.overlay.valueAsNumber)));
    this.fullButton.addEventListener("click", () => void this.loadFull());
    this.canvas.addEventListener("webglcontextlost", () => {
      if (!signal.aborted) {
        this.line.textContent = texts.viewer.contextLost;
      }
    });
    this.element = h(
      "section",
      { class: "images" },
      h(
        "div",
        { class: "toolbar" },
        choice(texts.viewer.layout, Object.entries(texts.viewer.layouts), "all", (value) => this.setLayout(value as Layout)),
        modality === "CT" &&
          choice(texts.viewer.window, [...ct, "auto" as const].map((name) => [name, texts.viewer.windows[name]]), this.window, (value) => {
            this.window = value as WindowName | "auto";
            this.then((viewer) => viewer.setWindow(this.range()));
          }),
        h("label", { class: "overlay" }, h("span", {}, texts.viewer.overlay), this.overlay),
        h("button", { type: "button", class: "small", onclick: () => this.then((viewer) => viewer.reset()) }, texts.viewer.reset),
      ),
      h("div", { class: "stage-area" }, h("div", { class: "canvas" }, this.canvas), this.pictures),
      h("div", { class: "status-line" }, this.line, this.fullButton, this.spot),
      h("p", { id: "keys", class: "spoken" }, texts.viewer.keys),
    );
  }

  /** Take up what a job has by now. Called again whenever something has come. */
  update(job: Job): void {
    this.drawPictures(job.artefacts);
    this.segments = job.segments;
    if (!job.volume_url) {
      return;
    }
    this.start(job.volume_url);
    const labels = find(job.artefacts, [LABELS]);
    const shown = job.segments.filter((segment) => segment.volume_ml === null || segment.volume_ml > 0);
    if (labels && shown.length) {
      this.once("labels", async (viewer) => {
        await viewer.showLabels(labels.url, shown, this.telling(texts.viewer.loadingLabels));
      });
    }
    const meshed = job.stages.find((stage) => stage.stage === "mesh")?.outcome;
    if (meshed === "done") {
      this.once("surfaces", async (viewer) => this.showSurfaces(viewer, find(job.artefacts, SCENES), shown));
    } else if (meshed === "failed" || meshed === "skipped") {
      this.once("surfaces", async (viewer) => viewer.showRays());
    }
    if (job.volume_url && !window.matchMedia(SMALL_SCREEN).matches) {
      void this.loadFull();
    }
  }

  setLooks(looks: ReadonlyMap<number, Look>): void {
    this.looks = looks;
    this.then((viewer) => viewer.setLooks(looks));
  }

  private volumeUrl = "";

  private start(url: string): void {
    if (this.viewer) {
      return;
    }
    this.volumeUrl = url;
    this.viewer = this.painted().then(() => this.open());
    this.viewer.catch(() => undefined); // what is wrong is said by the first who waits for it
    this.once("preview", async (viewer) => {
      viewer.setWindow(this.range());
      await viewer.showVolume(`${url}?size=preview`, this.telling(texts.viewer.loadingPreview));
      this.element.dataset["ready"] = "true";
      this.line.textContent = texts.viewer.preview;
      this.fullButton.hidden = !window.matchMedia(SMALL_SCREEN).matches;
    });
  }

  /** The pictures are seen first: compiling the viewer's shaders holds up everything else for a while. */
  private async painted(): Promise<void> {
    const pictures = [...this.pictures.querySelectorAll("img")].map((picture) => picture.decode().catch(() => undefined));
    const longEnough = new Promise((resolve) => window.setTimeout(resolve, LONGEST_FOR_PICTURES_MS));
    await Promise.race([Promise.all(pictures), longEnough]);
    await new Promise((resolve) => window.setTimeout(() => requestAnimationFrame(resolve), 0));
    this.element.dataset["pictures"] = "true";
    await new Promise((resolve) => window.setTimeout(resolve, 0));
  }

  private async open(): Promise<Viewer> {
    const { Viewer } = await import("../viewer/niivue");
    this.signal.throwIfAborted();
    if (!document.createElement("canvas").getContext("webgl2")) {
      throw new Error(texts.viewer.noGraphics);
    }
    return Viewer.start(this.canvas, (spot) => this.tell(spot), this.signal);
  }

  private async loadFull(): Promise<void> {
    this.fullButton.hidden = true;
    this.once("full", async (viewer) => {
      await viewer.showVolume(`${this.volumeUrl}?size=full`, this.telling(texts.viewer.loadingFull));
      this.line.textContent = texts.viewer.full;
      this.element.dataset["full"] = "true";
    });
  }

  private async showSurfaces(viewer: Viewer, scene: Artefact | undefined, segments: Segment[]): Promise<void> {
    if (scene) {
      await viewer.showScene(scene.url, segments, this.telling(texts.viewer.loadingSurfaces));
    } else {
      await viewer.showMeshes(segments, this.telling(texts.viewer.loadingSurfaces));
    }
    viewer.setLooks(this.looks);
    this.element.dataset["surfaces"] = "true";
  }

  /** Do something with the viewer after what is under way, once; what fails is said. */
  private once(what: string, work: (viewer: Viewer) => Promise<void>): void {
    if (this.started.has(what) || !this.viewer) {
      return;
    }
    this.started.add(what);
    const { viewer } = this;
    this.work = this.work.then(async () => {
      if (this.element.dataset["ready"] === "false") {
        return; // the pictures stay: there is nothing to lay this over
      }
      const before = this.line.textContent;
      try {
        await work(await viewer);
        if (what !== "preview" && what !== "full") {
          this.line.textContent = before;
        }
      } catch (error) {
        if (!isAbort(error) && !this.signal.aborted) {
          this.failed(what, error);
        }
      }
    });
  }

  private failed(what: string, error: unknown): void {
    if (what === "preview") {
      const isNoVolume = error instanceof Problem && [404, 409, 422].includes(error.status);
      this.line.textContent = isNoVolume ? `${texts.viewer.noVolume} ${error.detail}` : texts.viewer.failed(reason(error));
      this.element.dataset["ready"] = "false";
    } else if (what === "surfaces") {
      this.line.textContent = texts.viewer.noSurfaces(reason(error));
    } else {
      this.line.textContent = reason(error);
    }
  }

  private then(work: (viewer: Viewer) => void): void {
    void this.viewer?.then(work, () => undefined);
  }

  private telling(text: (bytes: string) => string): (received: number) => void {
    return (received) => {
      this.line.textContent = text(bytes(received));
    };
  }

  private range(): { low: number; high: number } | null {
    return this.window === "auto" ? null : range(this.window);
  }

  private setLayout(layout: Layout): void {
    this.layout = layout;
    this.pictures.dataset["layout"] = layout;
    this.then((viewer) => viewer.setLayout(layout));
  }

  private tell(spot: Spot): void {
    const [x, y, z] = spot.mm;
    const place = `${x > 0 ? "R" : "L"} ${Math.abs(x).toFixed(0)} ${y > 0 ? "A" : "P"} ${Math.abs(y).toFixed(0)} ${z > 0 ? "S" : "I"} ${Math.abs(z).toFixed(0)} mm`;
    const name = this.segments.find((segment) => segment.number === spot.segment)?.label;
    fill(this.spot, [place, this.modality === "CT" ? `${hounsfield(spot.value)} HU` : hounsfield(spot.value), name].filter(Boolean).join(" · "));
  }

  private drawPictures(artefacts: Artefact[]): void {
    if (this.pictures.childElementCount) {
      for (const view of VIEWS) {
        this.drawPicture(view, artefacts);
      }
      return;
    }
    this.pictures.dataset["layout"] = this.layout;
    fill(this.pictures, ...VIEWS.map((view) => h("figure", { "data-view": view })));
    this.drawPictures(artefacts);
  }

  private drawPicture(view: keyof typeof PICTURES, artefacts: Artefact[]): void {
    const place = this.pictures.querySelector(`[data-view="${view}"]`);
    const found = find(artefacts, PICTURES[view]);
    if (place && (!place.childElementCount || place.querySelector("img")?.getAttribute("src") !== found?.url)) {
      fill(place, found ? h("img", { src: found.url, alt: texts.viewer.pictures[view], decoding: "async" }) : h("span", { class: "faint" }, texts.viewer.noPicture));
    }
  }
}

function find(artefacts: Artefact[], names: string[]): Artefact | undefined {
  return names.map((name) => artefacts.find((artefact) => artefact.name === name)).find(Boolean);
}

/** Buttons of which one is pressed. */
function choice(label: string, options: (readonly [string, string])[], chosen: string, choose: (value: string) => void): HTMLElement {
  const buttons = options.map(([value, text]) =>
    h(
      "button",
      {
        type: "button",
        "aria-pressed": value === chosen ? "true" : "false",
        "data-value": value,
        onclick: (event) => {
          for (const button of buttons) {
            button.setAttribute("aria-pressed", String(button === event.currentTarget));
          }
          choose(value);
        },
      },
      text,
    ),
  );
  return h("div", { class: "choice", role: "group", "aria-label": label }, ...buttons);
}
