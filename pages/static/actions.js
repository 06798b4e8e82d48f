// Forms that send JSON: <form data-post="//runs" data-then="/runs/{run_id}">, with an <output> and a .field-error.
// A field's name may have dots (scope.camera), data-kind="list" or "number"; empty fields are not sent.
// data-estimate: one button has dry_run, and the other can be pressed once its plan is shown.

import { json, root, t } from "./page.js";

/** Return the values of a form as an object. */
export function values(form, button) {
  const all = {};
  for (const field of form.elements) {
    const text = field.value?.trim();
    if (!field.name || !text || field.disabled || (field.type === "submit" && field !== button)) continue;
    const path = field.name.split(".");
    const last = path.pop();
    const place = path.reduce((part, name) => (part[name] ??= {}), all);
    const kind = field.dataset.kind;
    if (kind === "list") place[last] = text.split(",").map((word) => word.trim()).filter(Boolean);
    else if (field.type === "submit") place[last] = true;
    else place[last] = kind === "number" ? Number(text) : text;
  }
  return all;
}

/** Return an operation of a rollout once it has ended. */
async function ended(outcome) {
  while (outcome.operation && ["waiting", "running"].includes(outcome.state)) {
    await new Promise((done) => setTimeout(done, 1000));
    outcome = await json(`//v1/operations/${outcome.id}`);
  }
  return outcome;
}

function inWords(plan) {
  const about = plan.estimate_s == null ? t("unknown") : t("about {n} min", { n: Math.max(1, Math.round(plan.estimate_s / 60)) });
  const texts = { all: plan.requested, reused: plan.reused, todo: plan.to_infer, mib: Math.round(plan.bytes / 2 ** 20), time: about, basis: plan.estimate_from };
  return t("{all} images, {reused} of them have a result; {todo} are to be detected, {mib} MiB. Time: {time} ({basis}).", texts);
}

async function send(form, button) {
  const [error, output] = [form.querySelector(".field-error"), form.querySelector("output")];
  const body = values(form, button); // before the buttons are disabled: their values are not sent then
  const buttons = [...form.querySelectorAll("button")].filter((each) => !each.disabled);
  error.hidden = true;
  output.textContent = form.dataset.wait ?? t("One moment …");
  for (const each of buttons) each.disabled = true;
  try {
    const found = await ended(await json(form.dataset.post, { method: "POST", body }));
    if (found.state === "refused") throw new Error(found.detail);
    output.textContent = found.plan ? inWords(found.plan) : (found.detail ?? t("Done."));
    if (found.plan) form.querySelector("[data-needs-estimate]").disabled = false;
    else if (found.report) output.textContent = t("Nothing to do: {accounts}", { accounts: found.report.accounting });
    else location.assign(form.dataset.then ? root + form.dataset.then.replace("{run_id}", found.run_id) : location.href);
  } catch (problem) {
    output.textContent = "";
    error.textContent = problem.message;
    error.hidden = false;
  } finally {
    for (const each of buttons) each.disabled = false;
  }
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.dataset.post) return;
  event.preventDefault();
  send(form, event.submitter);
});

document.addEventListener("input", (event) => {
  const form = event.target.closest("[data-estimate]");
  if (form) form.querySelector("[data-needs-estimate]").disabled = true; // the plan was of other fields
});
