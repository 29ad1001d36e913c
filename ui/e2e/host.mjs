// A real trawl for the browser tests: a port that plays tests/data/real.pcap, a directory as the bucket, two accounts and an
// operator. Owns the process and its folder.
//
// Invariant: nothing is left behind, neither process nor folder.
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { access, mkdir, mkdtemp, open, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
export const TRAWL = process.env.TRAWL_BIN ?? join(ROOT, "target/debug/trawl");

const sha256 = (text) => createHash("sha256").update(text).digest("hex");

export function freePort() {
  return new Promise((done, failed) => {
    const server = createServer();
    server.once("error", failed);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}

/** `blocks` in MiB; `capture`, `history`, `upload` and `s3` are lines of the config's sections; `env` is added to the environment. */
export async function startHost({ blocks = 64, spoolGiB = 2, capture = "", history = "", upload = "allow_file = true", s3 = "", env = {} } = {}) {
  await access(TRAWL);
  const folder = await mkdtemp(join(tmpdir(), "trawl-ui-"));
  const port = await freePort();
  const tokens = { write: randomBytes(16).toString("hex"), read: randomBytes(16).toString("hex"), other: randomBytes(16).toString("hex"), key: randomBytes(16).toString("hex"), operator: randomBytes(16).toString("hex") };
  const bucket = join(folder, "bucket");
  await mkdir(bucket, { mode: 0o700 });
  const cores = availableParallelism();
  const config = `
[host]
id = "uitest"
colo = "ord02"
[dpdk]
eal = ["--no-pci", "--in-memory", "--no-huge", "-m", "128"]
[[port]]
device = "net_pcap0,rx_pcap=${ROOT}tests/data/real.pcap,infinite_rx=1"
[cores]
workers = [${cores - 1}]
writers = [0]
[blocks]
bytes_max = "${blocks}MiB"
hugepages = "never"
[spool]
dir = "${folder}/spool"
bytes_max = "${spoolGiB}GiB"
segment_bytes = "64MiB"
rotate_seconds = 2
[store]
path = "${folder}/trawl.db"
[capture]
simple_interval_seconds = 5
${capture}
[history]
${history}
[upload]
${upload}
[upload.s3]
${s3}
[api]
listen = "127.0.0.1:${port}"
[[operator]]
token_sha256 = "${sha256(tokens.operator)}"
[[account]]
id = "acme"
[[account.credential]]
token_sha256 = "${sha256(tokens.write)}"
[[account.credential]]
token_sha256 = "${sha256(tokens.read)}"
role = "read"
[[account.credential]]
email = "ops@acme.example"
key_sha256 = "${sha256(tokens.key)}"
[[account]]
id = "globex"
[[account.credential]]
token_sha256 = "${sha256(tokens.other)}"
`;
  await writeFile(join(folder, "trawl.toml"), config, { mode: 0o640 });
  const log = await open(join(folder, "trawl.log"), "a");
  const host = { origin: `http://127.0.0.1:${port}`, bucket, tokens, process: undefined };

  host.start = async () => {
    host.process = spawn(TRAWL, ["serve", "--config", join(folder, "trawl.toml")], { stdio: ["ignore", log.fd, log.fd], env: { ...process.env, ...env } });
    const ended = new Promise((done) => host.process.once("exit", done));
    for (;;) {
      const answered = await fetch(`${host.origin}/openapi.json`).then((response) => response.ok, () => false);
      if (answered) return;
      const gone = await Promise.race([ended.then(() => true), new Promise((done) => setTimeout(() => done(false), 100))]);
      if (gone) throw new Error(`trawl ended: ${await readFile(join(folder, "trawl.log"), "utf8")}`);
    }
  };
  host.kill = (signal) =>
    new Promise((done) => {
      if (host.process.exitCode !== null || host.process.signalCode !== null) return done();
      host.process.once("exit", done);
      host.process.kill(signal);
    });
  /** The API as a script sees it: what pages show is compared with this. */
  host.api = async (path, { token = tokens.write, ...options } = {}) => {
    const response = await fetch(`${host.origin}/client/v4/accounts/acme${path}`, { ...options, headers: { Authorization: `Bearer ${token}`, ...options.headers } });
    if (response.status === 204) return undefined;
    const answer = await response.json();
    if (!answer.success) throw new Error(`${options.method ?? "GET"} ${path}: ${response.status} ${JSON.stringify(answer.errors)}`);
    return answer.result;
  };
  host.log = () => readFile(join(folder, "trawl.log"), "utf8");
  host.stop = async () => {
    await host.kill("SIGTERM");
    await log.close();
    await rm(folder, { recursive: true, force: true });
  };
  await host.start();
  return host;
}

/** Waits until this capture has ended, and gives its record. */
export async function ended(host, id) {
  for (;;) {
    const capture = await host.api(`/pcaps/${id}`);
    if (["success", "failed"].includes(capture.status)) return capture;
    await new Promise((done) => setTimeout(done, 100));
  }
}
