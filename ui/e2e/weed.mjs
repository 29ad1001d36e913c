// A real S3 server for the browser tests: SeaweedFS in one process, asked by curl, which signs requests. Owns its process and folder.
//
// Invariant: nothing of it is left when it was stopped.
import { execFile, spawn } from "node:child_process";
import { mkdtemp, open, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { freePort } from "./host.mjs";

const KEY = "trawltest";
const SECRET = "trawltestsecret";
const OPTIONS = ["s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc"];

export async function startWeed() {
  const folder = await mkdtemp(join(tmpdir(), "trawl-weed-"));
  const ports = [];
  for (const option of OPTIONS) ports.push(`-${option}=${await freePort()}`);
  const endpoint = `http://127.0.0.1:${ports[0].split("=")[1]}`;
  const users = { identities: [{ name: KEY, credentials: [{ accessKey: KEY, secretKey: SECRET }], actions: ["Admin", "Read", "Write", "List"] }] };
  await writeFile(join(folder, "s3.json"), JSON.stringify(users));
  const log = await open(join(folder, "weed.log"), "a");
  const options = ["server", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=0", "-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0", `-dir=${folder}`, `-s3.config=${join(folder, "s3.json")}`, ...ports];
  const server = spawn(process.env.TRAWL_WEED ?? "weed", options, { stdio: ["ignore", log.fd, log.fd], cwd: folder, detached: true, env: { ...process.env, WEED_S3_SSE_KEK: "0123456789abcdef".repeat(4) } });
  const failed = new Promise((done) => server.once("error", done));
  const signed = ["--silent", "--show-error", "--fail", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", `${KEY}:${SECRET}`];
  const ask = async (path, ...more) => (await promisify(execFile)("curl", [...signed, ...more, `${endpoint}/${path}`], { encoding: "buffer", maxBuffer: 1 << 30 })).stdout;
  const weed = {
    endpoint,
    env: { AWS_ACCESS_KEY_ID: KEY, AWS_SECRET_ACCESS_KEY: SECRET, AWS_REGION: "us-east-1" },
    object: (bucket, key) => ask(`${bucket}/${key}`),
    createBucket: (bucket) => ask(bucket, "--request", "PUT"),
    removeBucket: (bucket) => ask(bucket, "--request", "DELETE"),
    pause: () => process.kill(-server.pid, "SIGSTOP"),
    resume: () => process.kill(-server.pid, "SIGCONT"),
    stop: async () => {
      if (server.pid) process.kill(-server.pid, "SIGKILL");
      await log.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
  const until = Date.now() + 90_000;
  for (;;) {
    // The bucket is there from the second turn on. The S3 part answers before the volumes can be written.
    const ready = ask("ready", "--request", "PUT").catch(() => undefined).then(() => ask("ready/x", "--upload-file", join(folder, "s3.json")));
    const error = await Promise.race([ready.then(() => undefined, (answer) => answer), failed]);
    if (!error) return weed;
    if (error.code === "ENOENT" || Date.now() > until) throw new Error(`weed does not start: ${error}\n${await readFile(join(folder, "weed.log"), "utf8")}`);
    await new Promise((done) => setTimeout(done, 200));
  }
}
