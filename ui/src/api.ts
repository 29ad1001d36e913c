// Requests to the API: the envelope, its errors, the headers that a cookie session needs. Owns what goes over the wire; not what
// pages make of it.
//
// Invariant: no credential passes through here but in the body of the one login request, and nothing of it is kept.

export interface Problem {
  code: number;
  message: string;
  source?: { pointer?: string };
}

/** What a request failed with: the API's own words, or that no answer came. */
export class ApiError extends Error {
  readonly status: number;
  readonly problems: Problem[];
  readonly retryAfterSeconds: number | undefined;

  constructor(status: number, problems: Problem[], retryAfterSeconds?: number) {
    super(problems[0]?.message ?? `HTTP ${status}`);
    this.status = status;
    this.problems = problems;
    this.retryAfterSeconds = retryAfterSeconds;
  }

  get code(): number {
    return this.problems[0]?.code ?? 0;
  }

  /** No answer came: the network, or the host, is away. */
  get offline(): boolean {
    return this.status === 0;
  }
}

export interface Answer<T> {
  result: T;
  messages: Problem[];
  info?: { count?: number; per_page?: number; total_count?: number; next?: string | null };
  status: number;
}

const listeners = new Set<(event: "active" | "unauthorized") => void>();

/** Hears that the session was used, as the host counts it (nothing that a timer reads is a use), or is over. */
export function onAnswer(listener: (event: "active" | "unauthorized") => void): void {
  listeners.add(listener);
}

export interface Options {
  method?: "GET" | "POST" | "PUT" | "DELETE";
  body?: unknown;
  signal?: AbortSignal;
  /** 401 is an answer to this request and not the end of the session. */
  login?: boolean;
}

async function send(path: string, options: Options): Promise<Response> {
  const method = options.method ?? "GET";
  const headers: Record<string, string> = { Accept: "application/json" };
  if (method !== "GET") headers["X-Trawl-UI"] = "1";
  if (options.body !== undefined) headers["Content-Type"] = "application/json";
  try {
    return await fetch(path, {
      method,
      headers,
      body: options.body === undefined ? undefined : JSON.stringify(options.body),
      credentials: "same-origin",
      redirect: "error",
      cache: "no-store",
      signal: options.signal,
    });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError(0, []);
  }
}

/** Sends a request and unpacks the envelope. Undefined stands for an answer without a body (204, 304). */
export async function call<T>(path: string, options: Options = {}): Promise<Answer<T> | undefined> {
  const response = await send(path, options);
  const uses = path === SESSION || (options.method ?? "GET") !== "GET";
  if (response.status === 204 || response.status === 304) {
    if (uses) for (const listener of listeners) listener("active");
    return undefined;
  }
  const text = await response.text();
  let body: { result?: T; errors?: Problem[]; messages?: Problem[]; result_info?: Answer<T>["info"]; success?: boolean } = {};
  try {
    body = JSON.parse(text) as typeof body;
  } catch {
    if (response.ok) throw new ApiError(response.status, [{ code: 0, message: "the answer is not JSON" }]);
  }
  if (!response.ok) {
    if (response.status === 401 && !options.login) for (const listener of listeners) listener("unauthorized");
    const after = Number(response.headers.get("Retry-After") ?? "");
    throw new ApiError(response.status, body.errors ?? [], after > 0 ? after : undefined);
  }
  if (uses) for (const listener of listeners) listener("active");
  // The session and the host's own routes may answer without an envelope.
  const enveloped = body !== null && typeof body === "object" && "success" in body && "result" in body;
  return {
    result: (enveloped ? body.result : body) as T,
    messages: body.messages ?? [],
    info: body.result_info,
    status: response.status,
  };
}

/** As `call`, for what always answers with a body. */
export async function get<T>(path: string, signal?: AbortSignal): Promise<Answer<T>> {
  const answer = await call<T>(path, { signal });
  if (!answer) throw new ApiError(204, [{ code: 0, message: "an answer without a body" }]);
  return answer;
}

const API = "/client/v4";

/** Paths of one account. Ids come from the API and are checked, so that none can lead elsewhere. */
export function paths(account: string) {
  const base = `${API}/accounts/${encodeURIComponent(account)}`;
  const capture = (id: string) => `${base}/pcaps/${checkedId(id)}`;
  return {
    capabilities: `${base}/capabilities`,
    captures: `${base}/pcaps`,
    capture,
    /** With so many of its objects, from that number on. */
    progress: (id: string, limit: number, from = 0) => `${capture(id)}/progress?limit=${Math.trunc(limit)}&from=${Math.trunc(from)}`,
    series: (id: string) => `${capture(id)}/series`,
    stop: (id: string) => `${capture(id)}/stop`,
    download: (id: string) => `${capture(id)}/download`,
    manifest: (id: string) => `${capture(id)}/manifest`,
    object: (id: string, index: number) => `${capture(id)}/objects/${Math.trunc(index)}`,
    estimate: `${base}/pcaps/estimate`,
    events: `${base}/pcaps/events`,
    live: `${base}/pcaps/live`,
    buckets: `${base}/pcaps/ownership`,
    prove: `${base}/pcaps/ownership/validate`,
    bucket: (id: string) => `${base}/pcaps/ownership/${checkedId(id)}`,
  };
}

export const HOST = { state: "/ui/host", events: "/ui/host/events", series: "/ui/host/series", log: "/ui/host/log" };
export const SESSION = "/ui/session";

export function isId(id: string): boolean {
  return /^[0-9a-f]{32}$/.test(id);
}

function checkedId(id: string): string {
  return isId(id) ? id : "0".repeat(32);
}
