// Lets `node --test` read TypeScript, which Node 20 does not do by itself. Types are checked by tsc, not here.
import { register } from "node:module";

register("./typescript-hooks.mjs", import.meta.url);
