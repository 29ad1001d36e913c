// What follows Vite: the licences of what is bundled, a .br beside each file, the list of all files, and the budget.
// Owns everything in `dist` that Vite does not make.
//
// Invariant: the same input gives the same bytes; a package whose licence is not on the list, or a first load that is over the
// budget, ends the build.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const DIST = new URL("../dist/", import.meta.url);
const MODULES = new URL("../node_modules/", import.meta.url);
const LICENCES = ["MIT", "ISC", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause"];
/** Everything that is part of the bundle; @preact/signals brings its core. */
const BUNDLED = ["preact", "@preact/signals", "@preact/signals-core", "uplot"];
const KIB = 1024;
const BUDGET = { script: 60 * KIB, style: 12 * KIB, plots: 25 * KIB, all: 600 * KIB };

const read = (name) => readFileSync(new URL(name, DIST));
const files = (folder = "") =>
  readdirSync(new URL(folder, DIST))
    .sort()
    .flatMap((name) => {
      const path = folder + name;
      return statSync(new URL(path, DIST)).isDirectory() ? files(`${path}/`) : [path];
    });

function licences() {
  const parts = BUNDLED.map((name) => {
    const folder = new URL(`${name}/`, MODULES);
    const { version, license } = JSON.parse(readFileSync(new URL("package.json", folder), "utf8"));
    if (!LICENCES.includes(license)) throw new Error(`${name} ${version} has the licence ${license}, which is not on the list`);
    const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
    if (!file) throw new Error(`${name} ${version} has no file with its licence`);
    return `${name} ${version} (${license})\n\n${readFileSync(new URL(file, folder), "utf8").trim()}\n`;
  });
  writeFileSync(new URL("LICENSES.txt", DIST), `The dashboard contains these packages.\n\n${parts.join("\n---\n\n")}`);
}

function budget(names) {
  const size = (name) => gzipSync(read(name), { level: 9 }).length;
  const page = read("index.html").toString();
  const first = [...page.matchAll(/(?:src|href)="\/ui\/(assets\/[^"]+)"/g)].map(([, name]) => name);
  const sum = (list) => list.reduce((total, name) => total + size(name), 0);
  const found = {
    script: sum(first.filter((name) => name.endsWith(".js"))),
    style: sum(first.filter((name) => name.endsWith(".css"))),
    plots: sum(names.filter((name) => /uPlot|plot-/.test(name))),
    all: names.reduce((total, name) => total + read(name).length, 0),
  };
  for (const [what, most] of Object.entries(BUDGET)) {
    if (found[what] > most) throw new Error(`${what}: ${found[what]} bytes, and the budget is ${most}`);
    console.log(`    ${what}: ${found[what]} of ${most} bytes`);
  }
  if (/<script(?![^>]*\bsrc=)|<style|\son\w+=/i.test(page)) throw new Error("index.html has an inline script or style, which its policy forbids");
}

licences();
const plain = files();
budget(plain);
for (const name of plain) {
  const bytes = read(name);
  const parameters = { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_LGWIN]: 22, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length };
  const packed = brotliCompressSync(bytes, { params: parameters });
  if (packed.length < bytes.length) writeFileSync(new URL(`${name}.br`, DIST), packed);
}
const list = Object.fromEntries(
  files().map((name) => [name, { bytes: read(name).length, sha256: createHash("sha256").update(read(name)).digest("hex") }]),
);
writeFileSync(new URL("files.json", DIST), `${JSON.stringify(list, null, 1)}\n`);
