// How long until a series is seen, and what is transferred for it: each time in a browser that has seen nothing before.
// usage: node measure.mjs '{"address", "chromium", "series", "profile", "runs"}'
import { join } from "node:path";

import { open } from "./chromium.mjs";

const PARTS = { pictures: "first pictures", ready: "preview on the canvas", surfaces: "surfaces", full: "full resolution" };

const given = JSON.parse(process.argv[2]);
const runs = [];
for (let run = 0; run < given.runs; run += 1) {
  const browser = await open(given.chromium, join(given.profile, String(run)));
  const page = browser.pages()[0];
  const network = await browser.newCDPSession(page);
  const urls = new Map();
  const loaded = [];
  await network.send("Network.enable");
  network.on("Network.requestWillBeSent", ({ requestId, request }) => urls.set(requestId, request.url));
  network.on("Network.loadingFinished", ({ requestId, encodedDataLength, timestamp }) => {
    loaded.push({ path: new URL(urls.get(requestId) ?? "about:blank").pathname, bytes: encodedDataLength, timestamp });
  });
  await page.addInitScript((parts) => {
    window.seen = {};
    new MutationObserver(() => {
      const { dataset } = document.querySelector(".images") ?? { dataset: {} };
      for (const part of parts) {
        if (dataset[part] === "true") {
          window.seen[part] ??= performance.now();
        }
      }
    }).observe(document, { subtree: true, childList: true, attributes: true });
  }, Object.keys(PARTS));
  await page.goto(`${given.address}/#/series/${given.series}`);
  const bytes = {};
  const sum = () => loaded.reduce((total, one) => total + one.bytes, 0);
  for (const part of Object.keys(PARTS)) {
    await page.waitForFunction((wanted) => window.seen[wanted] !== undefined, part);
    bytes[PARTS[part]] = sum();
  }
  const seconds = await page.evaluate(() => window.seen);
  const kinds = {};
  for (const { path, bytes: size } of loaded) {
    const kind = /\.(js|css|svg)$|^\/$/.test(path) ? "page" : /\/thumbnails\/|preview\.png$/.test(path) ? "pictures" : /\.nii\.gz$/.test(path) ? "volumes" : /\.glb$/.test(path) ? "surfaces" : "answers";
    kinds[kind] = (kinds[kind] ?? 0) + size;
  }
  runs.push({ seconds: Object.fromEntries(Object.entries(PARTS).map(([part, name]) => [name, seconds[part] / 1000])), bytes, kinds });
  await browser.close();
}
console.log(JSON.stringify(runs));
