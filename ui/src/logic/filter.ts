// A filter in words and as JSON, and what is wrong with one before it is sent. Owns the rules that docs/FILTERS.md lists, as far
// as a form can check them; the host decides.
//
// Invariant: what the host would take is never refused here; what is refused here says which field and why.

export interface Filter {
  source_address?: string;
  destination_address?: string;
  source_port?: number;
  destination_port?: number;
  protocol?: number;
}

export const PROTOCOLS: readonly [number, string][] = [
  [6, "TCP"],
  [17, "UDP"],
  [1, "ICMP"],
  [58, "ICMPv6"],
  [132, "SCTP"],
  [47, "GRE"],
  [50, "ESP"],
  [89, "OSPF"],
];

const WITH_PORTS = [6, 17, 132];

export function protocolName(protocol: number): string {
  return PROTOCOLS.find(([number]) => number === protocol)?.[1] ?? `protocol ${protocol}`;
}

export interface Typed {
  source_address: string;
  destination_address: string;
  source_port: string;
  destination_port: string;
  protocol: string;
}

export const EMPTY: Typed = { source_address: "", destination_address: "", source_port: "", destination_port: "", protocol: "" };

export type Fault = "address" | "host_bits" | "port" | "protocol" | "versions" | "ports_need";

function version(address: string): 4 | 6 {
  return address.includes(":") ? 6 : 4;
}

function addressFault(text: string): Fault | undefined {
  const [address = "", length, ...more] = text.split("/");
  if (more.length > 0 || address === "") return "address";
  const six = address.includes(":");
  if (length !== undefined && (!/^\d{1,3}$/.test(length) || Number(length) > (six ? 128 : 32))) return "address";
  if (six) return /^[0-9a-fA-F:.]+$/.test(address) && !/:::/.test(address) ? undefined : "address";
  const octets = address.split(".");
  if (octets.length !== 4 || octets.some((octet) => !/^(0|[1-9]\d{0,2})$/.test(octet) || Number(octet) > 255)) return "address";
  if (length !== undefined) {
    const value = octets.reduce((sum, octet) => sum * 256 + Number(octet), 0);
    if (value % 2 ** (32 - Number(length)) !== 0) return "host_bits";
  }
  return undefined;
}

/** The filter that the fields stand for, and the first fault of each field. */
export function fromTyped(typed: Typed): { filter: Filter; faults: Partial<Record<keyof Typed, Fault>> } {
  const filter: Filter = {};
  const faults: Partial<Record<keyof Typed, Fault>> = {};
  for (const name of ["source_address", "destination_address"] as const) {
    const text = typed[name].trim();
    if (text === "") continue;
    const fault = addressFault(text);
    if (fault) faults[name] = fault;
    else filter[name] = text;
  }
  for (const name of ["source_port", "destination_port"] as const) {
    const text = typed[name].trim();
    if (text === "") continue;
    if (!/^\d{1,5}$/.test(text) || Number(text) > 65535) faults[name] = "port";
    else filter[name] = Number(text);
  }
  const protocol = typed.protocol.trim();
  if (protocol !== "") {
    const named = PROTOCOLS.find(([, name]) => name.toLowerCase() === protocol.toLowerCase())?.[0];
    if (named !== undefined) filter.protocol = named;
    else if (!/^\d{1,3}$/.test(protocol) || Number(protocol) > 255) faults.protocol = "protocol";
    else filter.protocol = Number(protocol);
  }
  const { source_address: source, destination_address: destination } = filter;
  if (source && destination && version(source) !== version(destination)) faults.destination_address = "versions";
  const asksForPort = filter.source_port !== undefined || filter.destination_port !== undefined;
  if (asksForPort && filter.protocol !== undefined && !WITH_PORTS.includes(filter.protocol)) faults.protocol = "ports_need";
  return { filter, faults };
}

export function toTyped(filter: Filter | undefined): Typed {
  const text = (value: string | number | undefined) => (value === undefined ? "" : String(value));
  return {
    source_address: text(filter?.source_address),
    destination_address: text(filter?.destination_address),
    source_port: text(filter?.source_port),
    destination_port: text(filter?.destination_port),
    protocol: text(filter?.protocol),
  };
}

/** "TCP 192.0.2.1:443 → any", or undefined where the filter takes every packet. */
export function inWords(filter: Filter | undefined, any: string): string | undefined {
  if (!filter || Object.keys(filter).length === 0) return undefined;
  const end = (address: string | undefined, port: number | undefined) => {
    if (address === undefined && port === undefined) return any;
    if (port === undefined) return address!;
    if (address === undefined) return `:${port}`;
    return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
  };
  const source = end(filter.source_address, filter.source_port);
  const destination = end(filter.destination_address, filter.destination_port);
  const protocol = filter.protocol === undefined ? "" : protocolName(filter.protocol);
  if (source === any && destination === any) return protocol;
  return `${protocol} ${source} → ${destination}`.trim();
}
