// Drives the packet captures API with Cloudflare's official TypeScript SDK. Arguments and talk are those of pcaps.py.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { createInterface } from "node:readline/promises";

const { default: Cloudflare } = createRequire(`${process.env.TRAWL_TEST_NODE_MODULES}/`)("cloudflare");
const [baseURL, account_id, apiEmail, apiKey, bucket, colo_name] = process.argv.slice(2);
// With a token too, it sends all three headers.
const client = new Cloudflare({ baseURL, apiEmail, apiKey, apiToken: "not-looked-at" });
const pcaps = client.magicTransit.pcaps;
const destination_conf = `s3://${bucket}/typescript?region=us-east-1`;
const input = createInterface({ input: process.stdin });

async function refused(kind, code, call) {
  const error = await call().then(() => assert.fail("not refused"), (error) => error);
  assert.ok(error instanceof kind, String(error));
  assert.equal(error.errors[0].code, code);
}

async function ended(id) {
  for (const deadline = Date.now() + 120_000; Date.now() < deadline; ) {
    const pcap = await pcaps.get(id, { account_id });
    if (pcap.status === "success" || pcap.status === "failed") return pcap;
    await new Promise((done) => setTimeout(done, 100));
  }
  assert.fail(`${id} does not end`);
}

// Few of the frames that the host replays as fast as it can, so that there is little to upload.
const filter_v1 = { protocol: 17, destination_port: 53 };
const full = { account_id, system: "magic-transit", type: "full", time_limit: 300, colo_name, destination_conf, filter_v1 };
await refused(Cloudflare.BadRequestError, 1019, () => pcaps.create(full));

const added = await pcaps.ownership.create({ account_id, destination_conf });
assert.deepEqual([added.status, added.validated, added.destination_conf], ["pending", "", destination_conf]);
const line = input[Symbol.asyncIterator]();
console.log(`READ typescript/${added.filename}`);
const ownership_challenge = (await line.next()).value;
await refused(Cloudflare.BadRequestError, 1017, () =>
  pcaps.ownership.validate({ account_id, destination_conf, ownership_challenge: added.filename }));
const proven = await pcaps.ownership.validate({ account_id, destination_conf, ownership_challenge });
assert.deepEqual([proven.status, proven.id], ["success", added.id]);
assert.deepEqual((await pcaps.ownership.get({ account_id })).result, [proven]);

const simple = await pcaps.create({ account_id, system: "magic-transit", type: "simple", time_limit: 60, packet_limit: 100 });
assert.deepEqual([simple.type, simple.status, simple.time_limit], ["simple", "pending", 60]);
const created = await pcaps.create(full);
assert.deepEqual([created.colo_name, created.destination_conf, created.type], [colo_name, destination_conf, "full"]);
await refused(Cloudflare.ConflictError, 1009, () => pcaps.create(full));
const listed = await pcaps.list({ account_id });
assert.deepEqual(listed.result.map((pcap) => pcap.id), [created.id, simple.id]);

assert.equal((await ended(simple.id)).status, "success");
while (!(await pcaps.get(created.id, { account_id })).packets_captured) {
  await new Promise((done) => setTimeout(done, 100));
}
assert.ok((await pcaps.stop(created.id, { account_id })) == null);
const stopped = await ended(created.id);
assert.equal(stopped.status, "success", stopped.error_message);
assert.ok(stopped.packets_captured > 0 && typeof stopped.stop_requested === "string");

const download = await pcaps.download.get(simple.id, { account_id });
assert.equal(download.headers.get("content-type"), "application/vnd.tcpdump.pcap");
const content = Buffer.from(await download.arrayBuffer());
assert.ok(content.length > 24 + 100 * 16 && content.length === Number(download.headers.get("content-length")));
assert.ok((await pcaps.ownership.delete(proven.id, { account_id })) == null);
assert.deepEqual((await pcaps.ownership.get({ account_id })).result, []);
input.close();
console.log("DONE");
