import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

import { defineConfig, type Plugin } from "vite";

/** The gateway, while the page is developed: `npm run dev` passes everything that is not the page on to it. */
const GATEWAY = "http://127.0.0.1:8000";
const ROUTES = "^/(uploads|process|jobs|series|events|files|dead-letters|audit|keys|session|dicomweb|healthz)(/|\\?|$)";
const BUILT = fileURLToPath(new URL("../src/voxelmill_gateway/static", import.meta.url));

/** Leaves compressed copies beside the scripts and styles, which the gateway gives to whoever takes them. */
function compressed(): Plugin {
  return {
    name: "compressed",
    apply: "build",
    closeBundle() {
      const folder = join(BUILT, "assets");
      for (const name of readdirSync(folder).filter((one) => /\.(js|css)$/.test(one))) {
        const content = readFileSync(join(folder, name));
        if (content.length > 2000) {
          const quality = { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: content.length };
          writeFileSync(join(folder, `${name}.br`), brotliCompressSync(content, { params: quality }));
          writeFileSync(join(folder, `${name}.gz`), gzipSync(content, { level: 9 }));
        }
      }
    },
  };
}

export default defineConfig({
  plugins: [compressed()],
  resolve: {
    alias: [{ find: /^numcodecs\/.*$/, replacement: fileURLToPath(new URL("src/viewer/no_codec.ts", import.meta.url)) }],
  },
  build: {
    outDir: BUILT,
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0, // nothing inline: the Content-Security-Policy allows files of the gateway only
    license: { fileName: "assets/licenses.md" }, // of what is built in: the wheel and the image carry it
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    chunkSizeWarningLimit: 1000, // niivue with its fonts; it is loaded when the first series is opened
  },
  server: { proxy: { [ROUTES]: { target: GATEWAY } } },
});
