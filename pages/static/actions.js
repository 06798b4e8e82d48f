// Forms that send JSON: <form data-post="//runs" data-then="/runs/{run_id}">. Errors are shown at their fields, others below the form.
// data-method is POST unless given; a button may have its own data-post, data-method and data-then. After success, data-then opens.
// A field's name may have dots (scope.camera); data-kind is one of READ, or item, key. Empty fields are not sent, with data-optional null.
// data-estimate: one button has dry_run, and the other can be pressed once its answer is shown. data-download: the answer is a file of the page's filter, listed in the element of this id.

import { element, explain, json, pause, Refused, request, root, t } from "./page.js";
import { changed, isValid } from "./address.js";

const parts = (text, separator) => text.split(separator).map((part) => part.trim()).filter(Boolean);
const READ = { number: Number, list: (text) => parts(text, ","), lines: (text) => parts(text, "\n"), json: JSON.parse };

/** Return the values of a form as an object. Throws Refused for text that is not JSON, and for a name that is listed twice. */
export function values(form, button) {
  const all = {};
  for (const field of form.elements) {
    const { name, type, dataset: { kind } } = field, text = type === "hidden" ? field.value : field.value?.trim();
    if (!name || field.disabled || (type === "submit" && field !== button) || (type === "radio" && !field.checked)) continue;
    const path = name.split("."), last = path.pop();
    const whole = () => path.reduce((part, key) => (part[key] ??= {}), all);
    const wrong = (words) => new Refused(400, words, 0, { [name]: words });
    if (kind === "item") whole()[last] = [...(whole()[last] ?? []), ...(field.checked ? [field.value] : [])];
    else if (kind === "lines") whole()[last] = [...(whole()[last] ?? []), ...READ.lines(text)];
    else if (kind === "key") {
      const rows = (whole()[last] ??= {});
      if (text in rows) throw wrong(t("listed twice: {name}", { name: text }));
      if (text) rows[text] = field.nextElementSibling.value.trim();
    } else if (type === "checkbox") whole()[last] = field.checked;
    else if (text || kind === "text") {
      try {
        whole()[last] = READ[kind]?.(text) ?? text;
      } catch (error) {
        throw wrong(t("invalid JSON: {why}", { why: error.message }));
      }
    } else if ("optional" in field.dataset) whole()[last] = null;
  }
  return all;
}

/** Return an operation of a rollout once it has ended. */
async function ended(outcome) {
  while (outcome.operation && ["waiting", "running"].includes(outcome.state)) {
    await pause(1000);
    outcome = await json(`//v1/operations/${outcome.id}`);
  }
  return outcome;
}

function inWords(plan) {
  const s = plan.estimate_s, about = s == null ? t("unknown") : s < 60 ? t("about {n} s", { n: Math.ceil(s) }) : t("about {n} min", { n: Math.round(s / 60) });
  const texts = { all: plan.requested, reused: plan.reused, todo: plan.to_infer, mib: Math.round(plan.bytes / 2 ** 20), time: about, basis: plan.estimate_from };
  return t("{all} images, {reused} of them have a result; {todo} are to be detected, {mib} MiB. Time: {time} ({basis}).", texts);
}

/** Return the element of a form for its state, or for its error; add it if there is none. */
function place(form, role) {
  const found = form.querySelector(role === "status" ? "output" : ".field-error:not([data-of])");
  if (found) return found;
  const made = role === "status" ? element("output", { role }) : element("p", { role, className: "field-error" });
  form.append(made);
  return made;
}

/** Return the first control that an error of the server names: scope.camera.0 is about scope.camera. */
function controlOf(form, name) {
  for (const path = name.split("."); path.length; path.pop()) {
    const found = form.querySelector(`[name="${CSS.escape(path.join("."))}"]:not([type=hidden])`);
    if (found) return found;
  }
  return null;
}

let shown = 0; // errors at fields, for their ids
const edits = new WeakMap(); // number of changes of a form

function show(form, problem) {
  const errors = Object.entries(problem.errors ?? {}).map(([name, words]) => [controlOf(form, name), name, words]);
  for (const [control, name, words] of errors) {
    if (!control) continue;
    const line = element("p", { id: `error-${++shown}`, role: "alert", className: "field-error", "data-of": name }, words);
    (control.closest(".field, label") ?? control).after(line);
    control.setAttribute("aria-invalid", "true");
    control.setAttribute("aria-errormessage", line.id);
  }
  const isWhole = !errors.length || errors.some(([control]) => !control);
  Object.assign(place(form, "alert"), { textContent: isWhole ? problem.message : "", hidden: !isWhole });
  form.querySelector("[aria-invalid]")?.focus();
}

function clear(form) {
  for (const line of form.querySelectorAll("[data-of]")) line.remove();
  for (const control of form.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
  place(form, "alert").hidden = true;
}

/** Download the file of an answer; then load the list of such files on this page again, by its id. */
async function save(response, list) {
  const name = /filename="([^"]*)"/.exec(response.headers.get("Content-Disposition"));
  const link = element("a", { href: URL.createObjectURL(await response.blob()), download: name?.[1] ?? "" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  const page = await request(`/${location.pathname}`);
  document.getElementById(list).replaceWith(new DOMParser().parseFromString(await page.text(), "text/html").getElementById(list));
}

async function send(form, button) {
  const { post, method = "POST", then, wait } = { ...form.dataset, ...button?.dataset };
  const output = place(form, "status"), asked = edits.get(form), buttons = [...form.querySelectorAll("button:enabled")];
  const filter = "download" in form.dataset && changed();
  clear(form);
  if ("download" in form.dataset && !isValid()) return;
  try {
    const body = method === "DELETE" ? undefined : { ...values(form, button), ...(filter ? { filter } : {}) }; // before the buttons are disabled: their values are not sent then
    output.textContent = wait ?? t("One moment …");
    for (const each of buttons) each.disabled = true;
    const response = await request(post, { method, body });
    const answer = "download" in form.dataset ? await save(response, form.dataset.download) : await ended(await response.json());
    if (answer?.state === "refused") throw new Error(explain(answer.detail));
    output.textContent = answer?.plan ? inWords(answer.plan) : (answer?.detail ?? t("Done."));
    const ready = form.querySelector("[data-needs-estimate]");
    if (ready && (answer?.plan ?? answer?.examples) && edits.get(form) === asked) ready.disabled = false;
    if (!form.dispatchEvent(new CustomEvent("answered", { detail: answer, cancelable: true }))) return; // shown by the page's own script
    if (answer?.plan) return;
    if (answer?.report) output.textContent = t("Nothing to do: each image has a result.");
    else if (then) location.assign(then.startsWith("//") ? then.slice(1) : root + then.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(answer[name])));
    else if (answer) location.reload();
  } catch (problem) {
    output.textContent = "";
    show(form, problem);
  } finally {
    for (const each of buttons) each.disabled = "needsEstimate" in each.dataset && edits.get(form) !== asked;
  }
}

document.addEventListener("submit", (event) => {
  if (!(event.submitter?.dataset.post ?? event.target.dataset.post)) return;
  event.preventDefault();
  send(event.target, event.submitter);
});

document.addEventListener("formdata", ({ target, formData }) => {
  if (target.getAttribute("method") === "get") for (const [name, value] of [...formData]) if (!value) formData.delete(name); // short addresses
});

document.addEventListener("input", (event) => {
  const form = event.target.closest("[data-estimate]");
  if (!form) return;
  edits.set(form, (edits.get(form) ?? 0) + 1);
  form.querySelector("[data-needs-estimate]").disabled = true; // the estimate was of other fields
});

// Save what another page could not. The grid and the viewer do so themselves, and the page of the session is for signing in first.
if (!document.querySelector("#grid, #viewer, #all-keys")) import("./decisions.js").then(({ save }) => save());
