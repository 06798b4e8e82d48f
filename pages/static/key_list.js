// The keys of the review, which its dialog and the page of the session list.

import { t } from "./page.js";

export const KEYS = {
  Enter: t("confirm all boxes of the burst and go on; with Shift only this image"), "0": t("empty, and go on"), "1–9": t("relabel, and go on"), L: t("type a label"),
  X: t("reject the box"), B: t("draw a box; arrows move it, with Shift they size it, Enter keeps it"), R: t("repeat the last decision"), U: t("undo; with Shift redo"),
  "← → A D": t("previous and next image"), "↑ ↓ W S": t("previous and next event"), M: t("flag: ask a colleague to look"), G: t("the grid at this place"), "J K": t("next and previous box"), N: t("next image that nobody has reviewed"), "+ - F": t("zoom, and fit"), "H C": t("boxes off, contrast"),
};

/** Add a row for each key to a table. */
export function list(table, help) {
  for (const [key, words] of Object.entries(help)) {
    const row = table.insertRow();
    const name = document.createElement("kbd");
    name.textContent = key;
    row.insertCell().append(name);
    row.insertCell().textContent = words;
  }
}

const all = document.getElementById("all-keys");
if (all) list(all, KEYS);
