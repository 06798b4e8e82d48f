// The dialog for a label. A label that no image has may be half a word: sending it again adds it.

import { element, json, t } from "./page.js";

const dialog = document.getElementById("label"), input = document.getElementById("label-input"), question = document.getElementById("label-new");
let known = [];

/** Return the labels that a view shows, the most frequent first. */
export async function labelsInUse(view = {}) {
  const bars = await json(`/v1/images/histogram?${new URLSearchParams({ ...view, by: "label" })}`);
  return bars.map((bar) => bar.value).filter(Boolean);
}

/** Return the label that the person types, or "" without one. `labels` are those in use, the most frequent first; `verb` is the button's. */
export function askLabel(labels, verb = t("Relabel")) {
  known = labels;
  dialog.querySelector(".main").textContent = verb;
  document.getElementById("labels").replaceChildren(...labels.map((value) => element("option", { value })));
  input.value = question.textContent = question.dataset.label = dialog.returnValue = "";
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue && input.value.trim()), { once: true }));
}

dialog.addEventListener("submit", (event) => {
  const label = input.value.trim();
  if (!event.submitter.value || known.includes(label) || label === question.dataset.label) return;
  event.preventDefault();
  const similar = known.filter((each) => each.toLowerCase().includes(label.toLowerCase())).slice(0, 5).join(", ");
  question.textContent = [t("“{label}” is a new label: Enter again adds it.", { label }), similar && t("Known: {labels}", { labels: similar })].join(" ");
  question.dataset.label = label;
});
