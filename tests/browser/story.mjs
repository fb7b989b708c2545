// One visit, from an empty installation to a series that is looked at. What was seen is written as JSON; the tests of
// test_story.py say what it has to be.
// usage: node story.mjs '{"address", "chromium", "folder", "profile", "pictures", "forPeople"}'
import { join } from "node:path";

import { compare, DESKTOP, open, PHONE, SMALL_DESKTOP, watch } from "./chromium.mjs";

const given = JSON.parse(process.argv[2]);
const seen = { overflow: {} };
const desktop = given.forPeople ? DESKTOP : SMALL_DESKTOP;
const browser = await open(given.chromium, given.profile, desktop);
const page = browser.pages()[0];
const faults = watch(page, given.address);

const go = async (hash) => {
  await page.goto("about:blank"); // else only what follows the # changes, and the page is not loaded anew
  await page.goto(`${given.address}/${hash}`);
};
const text = (selector) => page.locator(selector).first().innerText();
const picture = (name) => page.screenshot({ path: join(given.pictures, `${name}.png`) });
const canvas = () => page.locator("canvas").screenshot();
/** Wait until the canvas has been drawn as it is now: two pictures of it, one after the other, are the same. */
const settled = async () => {
  let before = await canvas();
  for (;;) {
    const now = await canvas();
    if (now.equals(before)) {
      return now;
    }
    before = now;
  }
};
const changed = async (before, act) => {
  await act();
  for (let tries = 0; ; tries += 1) {
    const now = await settled();
    if (!now.equals(before) || tries === 20) {
      return now;
    }
  }
};
/** The browser itself writes each answer of 4xx to its console: here they are what is looked for. */
const expectRefusals = () => {
  faults.errors = faults.errors.filter((line) => !/the server responded with a status of (404|422)/.test(line));
};
const onPhone = async (name) => {
  await page.setViewportSize(PHONE);
  seen.overflow[name] = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  await picture(`${name}-phone`);
  await page.setViewportSize(desktop);
};

async function emptyWorklist() {
  await go("");
  seen.empty = await text(".notice h2");
  await page.getByRole("link", { name: "Upload a folder" }).click();
}

async function upload() {
  await page.evaluate(() => {
    window.states = new Set();
    new MutationObserver(() => {
      for (const bar of document.querySelectorAll(".stage")) {
        window.states.add(`${bar.querySelector(".stage-name").textContent}: ${bar.dataset.state}`);
      }
    }).observe(document.body, { subtree: true, childList: true, attributes: true });
  });
  await page.locator("#folder").setInputFiles(given.folder);
  await page.locator(".worklist li").first().waitFor();
  seen.uploaded = await text(".sending");
  await page.locator('.worklist li[data-status="complete"]').waitFor({ timeout: 120_000 });
  await page.locator('.worklist li[data-status="partial"]').waitFor();
  await page.locator(".refused:not([hidden]) summary").click();
  seen.refused = await text(".refused li");
  seen.states = await page.evaluate(() => [...window.states]);
  await onPhone("upload");
}

async function worklist() {
  await page.getByRole("link", { name: "Worklist", exact: true }).click();
  await page.locator(".worklist .thumb img").waitFor();
  seen.rows = await page.locator(".worklist li").count();
  await picture("worklist");
  await onPhone("worklist");
  await page.getByRole("searchbox").fill("nobody is called so");
  await page.getByText("Nothing fits").waitFor();
  seen.address = page.url();
  await page.getByRole("button", { name: "Clear the filters" }).click();
}

async function series() {
  await page.getByRole("link", { name: "Open Phantom chest CT of Phantom, Chest" }).click();
  await page.locator(".images[data-pictures]").waitFor();
  seen.firstPictures = await page.locator(".pictures img").evaluateAll((all) => all.filter((one) => one.naturalWidth).length);
  for (const part of ["ready", "surfaces", "full"]) {
    await page.locator(`.images[data-${part}="true"]`).waitFor();
  }
  seen.segments = await page.locator(".segment[data-name]").allInnerTexts();
  await settled();
  await picture("viewer");

  const slices = await settled();
  const lung = await changed(slices, () => page.getByRole("button", { name: "Lung", exact: true }).click());
  seen.window = await compare(browser, slices, lung);
  const withoutBones = await changed(lung, () => page.getByRole("checkbox", { name: "Show Bones" }).uncheck());
  seen.labels = await compare(browser, lung, withoutBones);
  await page.getByRole("checkbox", { name: "Show Bones" }).check();

  const surfaces = await changed(withoutBones, () => page.getByRole("button", { name: "3-D", exact: true }).click());
  seen.surfaces = await compare(browser, surfaces);
  const fewer = await changed(surfaces, () => page.getByRole("checkbox", { name: "Show Bones" }).uncheck());
  seen.toggled = await compare(browser, surfaces, fewer);
  await page.getByRole("checkbox", { name: "Show Bones" }).check();

  await page.getByRole("button", { name: "Axial", exact: true }).click();
  const axial = await settled();
  await page.locator("canvas").focus();
  const higher = await changed(axial, async () => {
    for (let step = 0; step < 8; step += 1) {
      await page.keyboard.press("PageUp");
    }
  });
  seen.moved = await compare(browser, axial, higher);
  seen.spot = await text(".spot");

  await page.getByRole("button", { name: "All", exact: true }).first().click();
  await settled();
  await onPhone("viewer");
  seen.files = await page.locator(".file-list a").evaluateAll((links) => links.map((link) => link.getAttribute("href")));
}

/** A series of one image, which nobody can decode: no volume, no picture, and the reason. */
async function spoilt() {
  await page.getByRole("link", { name: "Worklist", exact: true }).click();
  await page.getByRole("link", { name: /^Open Spoilt in transfer/ }).click();
  await page.locator('.images[data-ready="false"]').waitFor();
  seen.noVolume = await text(".line");
  seen.notes = await text(".notes");
  await picture("spoilt");
  expectRefusals();
}

async function letters() {
  await page.getByRole("link", { name: "Dead letters", exact: true }).click();
  await page.locator(".letters tbody tr").waitFor();
  seen.letter = await text(".letters tbody tr");
  await picture("dead-letters");
  await onPhone("dead-letters");
  await page.getByRole("button", { name: "Replay all shown" }).click();
  seen.question = await text("dialog h2");
  await page.locator("dialog").getByRole("button", { name: "Replay" }).click();
  await page.getByRole("status").filter({ hasText: "replayed" }).waitFor();
  seen.replayed = await text(".said");
  // The file is as broken as before: the letter comes back, and says that it has been replayed.
  for (let tries = 0; tries < 100; tries += 1) {
    await go("#/dead-letters");
    await page.locator(".letters tbody tr, .notice h2").first().waitFor();
    if (await page.getByText("1 × replay").count()) {
      break;
    }
  }
  seen.again = await text(".letters tbody tr");
  await page.getByRole("button", { name: /^Drop/ }).click();
  await page.locator("dialog").getByRole("button", { name: "Drop" }).click();
  await page.getByText("No dead letters").waitFor();
  seen.left = await page.locator(".letters").count();
}

/** What nobody may see: a series that does not exist; the next step stands there. */
async function missing() {
  await go("#/series/1.2.3");
  seen.missing = await text(".notice.error");
  expectRefusals();
}

for (const part of [emptyWorklist, upload, worklist, series, spoilt, letters, missing]) {
  const started = performance.now();
  try {
    await part();
  } catch (error) {
    await page.screenshot({ path: join(given.pictures, "failed.png") });
    console.error(`${part.name}: ${error.message}\nerrors of the page: ${JSON.stringify(faults)}`);
    process.exitCode = 1;
    break;
  }
  console.error(`${part.name}: ${Math.round(performance.now() - started)} ms`);
}
await browser.close();
console.log(JSON.stringify({ ...seen, ...faults }));
