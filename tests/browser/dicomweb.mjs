// A page of another origin reads and stores with the JavaScript library dicomweb-client, the one that OHIF uses.
import { open, watch } from "./chromium.mjs";

const { page: address, gateway, key, chromium, profile, uids, compressed, file } = JSON.parse(process.argv[2]);

async function talk({ gateway, key, uids, compressed, file }) {
  const refused = [];
  const client = new DICOMwebClient.api.DICOMwebClient({
    url: `${gateway}/dicomweb`,
    headers: { "X-API-Key": key },
    errorInterceptor: (error) => refused.push({ status: error.status, said: error.response }),
  });
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
  const digest = async (buffer) =>
    [...new Uint8Array(await crypto.subtle.digest("SHA-256", buffer))].map((b) => b.toString(16).padStart(2, "0")).join("");
  const values = (found, tag) => found.map((one) => one[tag]?.Value?.[0]);
  const [studyInstanceUID, seriesInstanceUID, sopInstanceUID] = uids;
  const instance = { studyInstanceUID, seriesInstanceUID, sopInstanceUID };
  const seen = {};

  seen.studies = values(await client.searchForStudies({ queryParams: { PatientID: "P-?", limit: 5 } }), "0020000D");
  seen.nothing = await client.searchForStudies({ queryParams: { PatientID: "nobody" } });
  seen.series = values(await client.searchForSeries({ studyInstanceUID }), "0020000E");
  seen.instances = values(await client.searchForInstances(instance), "00200013");

  const metadata = await client.retrieveSeriesMetadata(instance);
  seen.metadata = values(metadata, "00080018");
  const own = metadata.find((one) => one["00080018"].Value[0] === sopInstanceUID);
  const [bulk] = await client.retrieveBulkData({ BulkDataURI: own["7FE00010"].BulkDataURI });

  let progress = 0;
  const request = { progressCallback: ({ loaded }) => (progress = loaded) };
  const all = await client.retrieveSeries({ ...instance, request });
  seen.all = await Promise.all(all.map(digest));
  seen.progress = progress >= all.reduce((sum, { byteLength }) => sum + byteLength, 0);
  seen.one = await digest(await client.retrieveInstance(instance));

  const frames = await client.retrieveInstanceFrames({ ...instance, frameNumbers: [1] });
  seen.frames = await Promise.all([...frames, bulk].map(digest));
  const [study, series, sop] = compressed;
  const names = { studyInstanceUID: study, seriesInstanceUID: series, sopInstanceUID: sop, frameNumbers: [1] };
  const wishes = {
    decoded: undefined,
    stored: [{ mediaType: "application/octet-stream", transferSyntaxUID: "*" }],
    either: [
      { mediaType: "image/x-dicom-rle", transferSyntaxUID: "1.2.840.10008.1.2.5" },
      { mediaType: "application/octet-stream", transferSyntaxUID: "1.2.840.10008.1.2.1" },
    ],
  };
  for (const [name, mediaTypes] of Object.entries(wishes)) {
    seen[name] = (await client.retrieveInstanceFrames({ ...names, ...(mediaTypes && { mediaTypes }) }))[0].byteLength;
  }

  const mediaTypes = [{ mediaType: "image/png" }];
  for (const [name, call] of [["rendered", "retrieveInstanceRendered"], ["thumbnail", "retrieveInstanceThumbnail"]]) {
    const picture = await client[call]({ ...instance, mediaTypes, queryParams: { viewport: "32,32" } });
    const { width, height } = await createImageBitmap(new Blob([[picture].flat()[0]], { type: "image/png" }));
    seen[name] = [width, height];
  }

  const answer = JSON.parse(await client.storeInstances({ datasets: [bytes(file)] }));
  seen.kept = values(answer["00081199"].Value, "00081155");
  await client.retrieveInstance({ ...instance, sopInstanceUID: "1.2.3.99" }).catch(() => {});
  seen.refused = refused.map(({ status, said }) => [status, JSON.parse(new TextDecoder().decode(said)).title]);
  return seen;
}

const browser = await open(chromium, profile);
try {
  const page = await browser.newPage();
  const { errors } = watch(page, address);
  await page.goto(address);
  await page.addScriptTag({ url: `${address}/dicomweb-client.js` });
  const seen = await page.evaluate(talk, { gateway, key, uids, compressed, file });
  console.log(JSON.stringify({ ...seen, errors }));
} finally {
  await browser.close();
}
