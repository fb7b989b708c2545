// Debian's Chromium, driven by playwright-core; what the page does that it should not is collected.
import { createRequire } from "node:module";

const { chromium } = createRequire(new URL("../../services/gateway/page/package.json", import.meta.url))("playwright-core");

// WebGL 2 in software, for machines without a GPU; and a browser that talks to nobody but the gateway.
const ARGUMENTS = [
  "--use-gl=angle",
  "--use-angle=swiftshader",
  "--enable-unsafe-swiftshader",
  "--ignore-gpu-blocklist",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-quic",
  "--no-first-run",
  ...(process.getuid() === 0 ? ["--no-sandbox"] : []),
];

export const DESKTOP = { width: 1280, height: 800 };
/** The least that is laid out like a desktop: without a GPU every pixel of a canvas costs. */
export const SMALL_DESKTOP = { width: 1024, height: 600 };
export const PHONE = { width: 360, height: 740 };

/** Open a browser with a profile of its own. */
export async function open(executablePath, profile, viewport = DESKTOP) {
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath,
    args: ARGUMENTS,
    headless: true,
    viewport,
    colorScheme: "dark",
  });
  browser.setDefaultTimeout(60_000);
  return browser;
}

/** Collect errors of scripts, lines of the console that are errors, and requests to other hosts. */
export function watch(page, address) {
  const seen = { errors: [], strangers: [] };
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  page.on("console", (line) => {
    if (line.type() === "error") {
      seen.errors.push(line.text());
    }
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(address) && !/^(blob|data|about|chrome):/.test(request.url())) {
      seen.strangers.push(request.url());
    }
  });
  return seen;
}

/** Compare pictures (PNG) of one size: how many pixels are brighter than the ground, and how many differ. */
export async function compare(browser, one, other = one) {
  const helper = await browser.newPage();
  try {
    return await helper.evaluate(
      async (pictures) => {
        const [first, second] = await Promise.all(
          pictures.map(async (text) => {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
            const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
            context.drawImage(bitmap, 0, 0);
            return context.getImageData(0, 0, bitmap.width, bitmap.height).data;
          }),
        );
        const found = { pixels: first.length / 4, bright: 0, coloured: 0, different: 0 };
        for (let at = 0; at < first.length; at += 4) {
          const rgb = [first[at], first[at + 1], first[at + 2]];
          found.bright += Math.max(...rgb) > 48 ? 1 : 0;
          found.coloured += Math.max(...rgb) - Math.min(...rgb) > 24 ? 1 : 0;
          found.different += rgb.some((value, channel) => Math.abs(value - second[at + channel]) > 24) ? 1 : 0;
        }
        return found;
      },
      [one, other].map((picture) => picture.toString("base64")),
    );
  } finally {
    await helper.close();
  }
}
