// Signing in and out, and what others than admins see. What was seen is written as JSON; test_sign_in.py says what it
// has to be. usage: node sign_in.mjs '{"address", "chromium", "profile", "wrong", "viewer", "viewerId", "admin", "series"}'
import { open, watch } from "./chromium.mjs";

const given = JSON.parse(process.argv[2]);
const seen = { addresses: [], titles: [] };
const browser = await open(given.chromium, given.profile);
const page = browser.pages()[0];
const faults = watch(page, given.address);
const asked = [];
page.on("request", (request) => asked.push(request.url()));
page.on("framenavigated", (frame) => seen.addresses.push(frame.url()));

const note = async () => seen.titles.push(await page.title());
const navigation = () => page.locator("nav a").allInnerTexts();
const form = () => page.locator("form.sign-in").waitFor();
const signIn = async (secret) => {
  await form();
  await page.locator("#secret").fill(secret);
  await page.locator("form.sign-in button").click();
};
const go = async (hash) => {
  await page.evaluate((to) => (window.location.hash = to), hash);
};
const kept = () =>
  page.evaluate(async () => ({
    cookie: document.cookie,
    local: { ...localStorage },
    session: { ...sessionStorage },
    databases: (await indexedDB.databases()).length,
    caches: (await caches.keys()).length,
  }));

async function stranger() {
  await page.goto(given.address);
  await form();
  await note();
  await signIn(given.wrong);
  seen.wrong = await page.locator(".wrong:not(:empty)").innerText();
}

async function viewer() {
  await signIn(given.viewer);
  await page.locator(".worklist li").first().waitFor();
  await note();
  seen.rows = await page.locator(".worklist li").count();
  seen.viewer = await navigation();
  seen.cookies = await browser.cookies();
  seen.kept = await kept();
  await go("#/upload");
  seen.upload = await page.locator(".notice.error").innerText();
  await go("#/dead-letters");
  await page.getByText("operator").waitFor();
  seen.letters = await page.locator(".notice.error").innerText();
  await go(`#/series/${given.series}`);
  await page.locator(".segment[data-name]").first().waitFor();
  await note();
}

/** The key is revoked while its owner looks: the next thing that is asked for leads to the form. */
async function revoked() {
  const answer = await fetch(`${given.address}/keys/${given.viewerId}`, { method: "DELETE", headers: { "X-API-Key": given.admin } });
  seen.revoked = answer.status;
  await go("#/"); // no click: the page asks by itself too, and the link may be gone already
  await form();
  seen.leftBehind = await page.locator(".worklist li, .segment, nav a").count();
}

async function admin() {
  await signIn(given.admin);
  await page.locator("nav a").first().waitFor();
  seen.admin = await navigation();
  await page.getByRole("button", { name: "Sign out" }).click();
  await form();
  seen.signedOut = await browser.cookies();
  await page.goBack();
  await form();
  await page.reload();
  await form();
  seen.after = await page.locator(".worklist li, nav a").count();
}

for (const part of [stranger, viewer, revoked, admin]) {
  try {
    await part();
  } catch (error) {
    console.error(`${part.name}: ${error.message}\n${await page.locator("body").innerText()}\n${JSON.stringify(faults)}`);
    process.exitCode = 1;
    break;
  }
}
await browser.close();
seen.addresses.push(...asked);
// The browser itself writes each answer of 401 and 404 to its console.
const errors = faults.errors.filter((line) => !/the server responded with a status of (401|404|410|422)/.test(line));
console.log(JSON.stringify({ ...seen, ...faults, errors }));
