// A capture's request written for the command line, curl and Python. Owns the quoting and the names of options; the request
// itself comes from the form.
//
// Invariant: no credential is in what is shown. It stands in the environment of whoever runs it.

import { shellWord } from "./text.ts";

export interface Request {
  system: "magic-transit";
  type: "simple" | "full";
  time_limit: number;
  packet_limit?: number;
  byte_limit?: number;
  filter_v1?: Record<string, string | number>;
  colo_name?: string;
  destination_conf?: string;
  offset_time?: string;
  format?: string;
  compression?: string;
}

export function asCurl(origin: string, account: string, request: Request): string {
  const url = `${origin}/client/v4/accounts/${encodeURIComponent(account)}/pcaps`;
  return [
    `curl ${shellWord(url)} \\`,
    `  --header "Authorization: Bearer $TRAWL_TOKEN" \\`,
    `  --json ${shellWord(JSON.stringify(request))}`,
  ].join("\n");
}

export function asCli(origin: string, account: string, request: Request): string {
  const options: [string, string | number | undefined][] = [
    ["url", `${origin}/client/v4`],
    ["account", account],
    ["type", request.type],
    ["time-limit", request.time_limit],
    ["packet-limit", request.packet_limit],
    ["byte-limit", request.byte_limit],
    ["colo-name", request.colo_name],
    ["offset-time", request.offset_time],
    ["destination-conf", request.destination_conf],
    ["format", request.format],
    ["compression", request.compression],
    ["source-address", request.filter_v1?.source_address],
    ["destination-address", request.filter_v1?.destination_address],
    ["source-port", request.filter_v1?.source_port],
    ["destination-port", request.filter_v1?.destination_port],
    ["protocol", request.filter_v1?.protocol],
  ];
  const words = options
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `--${name} ${shellWord(String(value))}`);
  return ["trawl capture start --wait", ...words].join(" \\\n  ");
}

function python(value: unknown): string {
  if (value !== null && typeof value === "object")
    return `{${Object.entries(value)
      .map(([key, inner]) => `${JSON.stringify(key)}: ${python(inner)}`)
      .join(", ")}}`;
  return JSON.stringify(value);
}

export function asPython(origin: string, account: string, request: Request): string {
  const { format, compression, ...known } = request;
  const extra = Object.fromEntries(Object.entries({ format, compression }).filter(([, value]) => value !== undefined));
  const lines = Object.entries({ account_id: account, ...known })
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `    ${name}=${python(value)},`);
  if (Object.keys(extra).length > 0) lines.push(`    extra_body=${python(extra)},`);
  return [
    "import os",
    "from cloudflare import Cloudflare",
    "",
    `client = Cloudflare(base_url=${JSON.stringify(`${origin}/client/v4`)}, api_token=os.environ["TRAWL_TOKEN"])`,
    "capture = client.magic_transit.pcaps.create(",
    ...lines,
    ")",
    "print(capture.id, capture.status)",
  ].join("\n");
}
