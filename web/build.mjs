// Builds the two pages, and notes the digest of what they were built from: the one that needs no server
// into src/paragonsr2/web/page, that of `paragonsr2 app` into src/paragonsr2/app/page.
import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const here = import.meta.dirname;
const rooms = join(here, "..", "src", "paragonsr2");
const [page, app] = [join(rooms, "web", "page"), join(rooms, "app", "page")];
const runtime = join(here, "node_modules", "onnxruntime-web", "dist", "ort-wasm-simd-threaded");

const usual = {
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "inline",
  logLevel: "warning",
};

for (const folder of [page, app]) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
}
cpSync(join(here, "app"), app, { recursive: true });
for (const shared of ["base.css", "icon.svg"]) cpSync(join(here, "static", shared), join(app, shared));
await build({
  ...usual,
  entryPoints: [join(here, "src", "app", "main.ts")],
  outfile: join(app, "app.js"),
});

cpSync(join(here, "static"), page, { recursive: true });
await build({
  ...usual,
  entryPoints: ["main", "worker", "sw"].map((name) => join(here, "src", `${name}.ts`)),
  outdir: page,
  // ONNX Runtime without its WebAssembly inside: it is a file of its own.
  conditions: ["onnxruntime-web-use-extern-wasm"],
});
cpSync(`${runtime}.mjs`, join(page, "runtime.mjs"));
// Packed, the runtime has a quarter of its size; the page unpacks it. With the suffix .gz, some
// servers would let the browser unpack it.
writeFileSync(join(page, "runtime.bin"), gzipSync(readFileSync(`${runtime}.wasm`), { level: 9 }));

const sources = ["app", "src", "static"].flatMap((folder) =>
  readdirSync(join(here, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(here.length + 1)),
);
const digest = createHash("sha256");
for (const name of [...sources, "build.mjs", "package-lock.json", "tsconfig.json"].sort())
  digest.update(`${name}\0`).update(readFileSync(join(here, name)));
writeFileSync(join(here, "built.json"), `${JSON.stringify({ sources: digest.digest("hex") })}\n`);
