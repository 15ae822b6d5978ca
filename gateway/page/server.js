// Requests to the gateway that served this page, and what can go wrong with them.

const KEY = "clipcap-key"; // its name in sessionStorage: forgotten when the tab is closed

// The gateway answered with an error. `message` is the gateway's own text.
export class Refused extends Error {
  constructor(status, code, message, retryAfter) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter; // seconds, or null
  }
}

// No answer came: the gateway is stopped, restarting, or out of reach.
export class Unreachable extends Error {}

// The browser cannot read the file: it was moved or deleted, or it is a folder.
export class Unreadable extends Error {}

export function keyGiven() {
  return sessionStorage.getItem(KEY) !== null;
}

export function keepKey(key) {
  sessionStorage.setItem(KEY, key);
}

// What the server captions with: {model, formats, max_pixels, options}.
export async function describe() {
  return (await ask("v1/description", {})).body;
}

// The captions of one picture.
// `file` is a File, `options` maps names to text. Returns {result, model, seconds, requestId}.
export async function caption(file, options, signal) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new Unreadable(
      `The browser cannot read ${file.name}. It may be a folder, or it was moved or deleted.`,
    );
  }
  const form = new FormData();
  for (const [name, value] of Object.entries(options)) form.append(name, value);
  form.append("data", file, file.name);
  const { body, requestId } = await ask("v1/captions", { method: "POST", body: form, signal });
  const result = body.results[0];
  if (result.error) throw refused(result.error, null);
  return { result, model: body.model, seconds: body.seconds, requestId };
}

// Says what a person thinks of a caption: {thumbs, correction, keep}.
// `file` is the picture, which is sent only if it is to be kept. Returns what is stored now.
export async function rate(requestId, index, { thumbs, correction, keep }, file) {
  const form = new FormData();
  form.append("request_id", requestId);
  form.append("caption_index", index);
  if (thumbs) form.append("thumbs", thumbs);
  if (correction) form.append("correction", correction);
  if (keep) form.append("image", file, file.name);
  return (await ask("feedback", { method: "POST", body: form })).body;
}

async function ask(path, request) {
  const key = sessionStorage.getItem(KEY);
  const headers = key === null ? {} : { Authorization: `Bearer ${key}` };
  let reply;
  let text;
  try {
    reply = await fetch(path, { ...request, headers, cache: "no-store" });
    text = await reply.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable(error.message);
  }
  let body = null;
  try {
    body = JSON.parse(text);
  } catch {
    // Not from the gateway: the page of a proxy in front of it. Handled below.
  }
  if (reply.ok && body !== null) return { body, requestId: reply.headers.get("X-Request-Id") };
  const seconds = Number.parseFloat(reply.headers.get("Retry-After"));
  const retryAfter = Number.isFinite(seconds) ? seconds : null;
  const error = body?.error ?? body?.results?.find((result) => result.error)?.error;
  if (error) throw refused({ ...error, status: reply.status }, retryAfter);
  const shown = text.slice(0, 200).trim() || "an empty body";
  const told = `The server answered with status ${reply.status} and no error object: ${shown}`;
  throw new Refused(reply.status, "bad_reply", told, retryAfter);
}

function refused({ status, code, message }, retryAfter) {
  return new Refused(status, code, message, retryAfter);
}
