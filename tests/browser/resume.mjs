// An upload in the middle of which the page is loaded anew, and the same folder chosen again. What was seen is written
// as JSON; test_resume.py says what it has to be. usage: node resume.mjs '{"address", "chromium", "profile", "folder"}'
import { open } from "./chromium.mjs";

/** So slow that there is a middle. */
const SLOWLY = { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput: 6 << 20 };
const AT_ONCE = { ...SLOWLY, uploadThroughput: -1 };

const given = JSON.parse(process.argv[2]);
const seen = { errors: [] };
const browser = await open(given.chromium, given.profile);
const page = browser.pages()[0];
const network = await browser.newCDPSession(page);
await network.send("Network.enable");
page.on("pageerror", (error) => seen.errors.push(String(error)));
page.on("dialog", (dialog) => void dialog.accept()); // it asks before an upload is left
const note = (puts, request) => {
  if (request.method() === "PUT") {
    puts.push({ url: request.url(), range: request.headers()["content-range"] ?? "" });
  }
};
const begun = [];
const taken = []; // one may be refused while the gateway still takes in what came before the page was left
page.on("request", (request) => note(begun, request));
page.on("response", (answer) => answer.ok() && note(taken, answer.request()));
const choose = () => page.locator("#folder").setInputFiles(given.folder);
const kept = () => page.evaluate(() => Object.keys(localStorage).filter((key) => key.startsWith("voxelmill.upload.")).length);

async function interrupted() {
  await page.goto(`${given.address}/#/upload`);
  await network.send("Network.emulateNetworkConditions", SLOWLY);
  await choose();
  await page.waitForFunction((enough) => document.querySelector(".overall progress")?.value > enough, given.enough);
  seen.kept = await kept();
  await page.reload();
  seen.before = begun.splice(0);
  taken.splice(0);
}

async function resumed() {
  await network.send("Network.emulateNetworkConditions", AT_ONCE);
  await choose();
  await page.locator(".said", { hasText: "Going on" }).waitFor();
  await page.getByText("files uploaded").waitFor();
  seen.line = await page.locator(".sending").innerText();
  seen.after = taken;
  seen.left = await kept();
}

for (const part of [interrupted, resumed]) {
  try {
    await part();
  } catch (error) {
    console.error(`${part.name}: ${error.message}\n${await page.locator("body").innerText()}\n${JSON.stringify({ ...seen, begun })}`);
    process.exitCode = 1;
    break;
  }
}
await browser.close();
console.log(JSON.stringify(seen));
