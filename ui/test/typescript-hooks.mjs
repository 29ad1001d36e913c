// The loader of `typescript.mjs`: strips types and JSX by the compiler that the build uses.
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { transformWithOxc } from "vite";

export async function load(url, context, next) {
  if (!/\.tsx?$/.test(url)) return next(url, context);
  const path = fileURLToPath(url);
  const { code } = await transformWithOxc(await readFile(path, "utf8"), path, { jsx: { runtime: "automatic", importSource: "preact" } });
  return { format: "module", source: code, shortCircuit: true };
}
