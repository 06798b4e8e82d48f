// What every page shares: translated texts, requests with plain errors, elements, and the notice at the foot.

export const root = document.documentElement.dataset.root;
const [messages, problems] = ["messages", "problems"].map((id) => JSON.parse(document.getElementById(id).textContent));

/** Return a whole number with its digits in groups, as pages/html.py: a comma is a decimal sign in German. */
export const grouped = (n) => n.toLocaleString("en").replaceAll(",", "\u202f");

/** Return the text in the visitor's language, with {values}; numbers are grouped. */
export function t(text, values = {}) {
  return (messages[text] ?? text).replace(/\{(\w+)\}/g, (whole, name) => (typeof values[name] === "number" ? grouped(values[name]) : values[name] ?? whole));
}

/** Return a message of the server in the visitor's language if it is translated; patterns and words are those of pages/html.py. */
export function explain(text) {
  for (const [pattern, words] of problems) {
    const found = new RegExp(`^${pattern}$`, "s").exec(text);
    if (found) return words.replace(/\{(\d+)\}/g, (_, i) => explain(found[Number(i) + 1]));
  }
  const reason = text.indexOf(": ") + 2; // of a field
  return reason < 2 ? text : text.slice(0, reason) + explain(text.slice(reason));
}

/** Wait for this time in ms. */
export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** Return an element. `values` are its properties, or attributes if it has no such property. */
export function element(tag, values = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(values)) name in made ? (made[name] = value) : made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Return an element of SVG with these attributes. */
export function shape(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Show a short text at the foot, which screen readers announce. */
export function notice(text, ms = 6000) {
  const place = document.getElementById("notice");
  place.textContent = text;
  place.hidden = !text;
  clearTimeout(place.timer);
  if (ms) place.timer = setTimeout(() => (place.hidden = true), ms);
}

/** A request that the server refused; `status` is 0 without an answer, `retryS` its Retry-After or 0, `errors` are by field. */
export class Refused extends Error {
  constructor(status, detail, retryS = 0, errors = {}) {
    super(detail);
    Object.assign(this, { status, retryS, errors });
  }
}

/** Return the JSON of a path below the page's root, {} for an answer without a body. Throws as `request`, also if the body is cut off. */
export async function json(path, options) {
  const answer = await request(path, options);
  try {
    const text = await answer.text();
    return text ? JSON.parse(text) : {};
  } catch {
    throw new Refused(0, t("The server does not answer."));
  }
}

/** Return the response of a path below the page's root, or of "//PATH" of the server; a file is sent as it is. Throws Refused. */
export async function request(path, { method = "GET", body } = {}) {
  const isRaw = body === undefined || body instanceof Blob;
  const headers = isRaw ? {} : { "Content-Type": "application/json" };
  const data = isRaw ? body : JSON.stringify(body);
  let answer;
  try {
    answer = await fetch(path.startsWith("//") ? path.slice(1) : root + path, { method, headers, body: data });
  } catch {
    throw new Refused(0, t("The server does not answer."));
  }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  if (answer.status === 401 && path !== "/v1/session") problem.detail = t("Your session has ended. Sign in again in another tab.");
  const errors = Object.fromEntries(Object.entries(problem.errors ?? {}).map(([name, words]) => [name, explain(words)]));
  throw new Refused(answer.status, explain(problem.detail ?? `HTTP ${answer.status}`), Number(answer.headers.get("Retry-After")) || 0, errors);
}

/** Words for the codes of the API. */
export const STATUS = { ok: t("with detections"), empty: t("empty"), failed: t("failed"), missing: t("without result") };
export const ACTION = { keep: t("confirmed"), suppress: t("rejected"), relabel: t("relabelled"), add: t("drawn"), withdraw: t("taken back"), flag: t("flagged") };
