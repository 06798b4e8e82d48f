// Keys of a page: single keys that a person can switch off, and the list of them at "?".

import { element, t } from "./page.js";

const SWITCH = "resight.keys";

/** Keys of the review, which its dialog and the page of the session list. */
export const KEYS = {
  Enter: t("confirm all boxes of the burst and go on; with Shift only this image"), "0": t("empty, and go on"), "1–9": t("relabel, and go on"), L: t("type a label"),
  X: t("reject the box"), B: t("draw a box; arrows move it, with Shift they size it, Enter keeps it"), R: t("repeat the last decision"), U: t("undo; with Shift redo"),
  "← → A D": t("previous and next image"), "↑ ↓ W S": t("previous and next event"), M: t("flag: ask a colleague to look"), G: t("the grid at this place"), "J K": t("next and previous box"), N: t("next image that nobody has reviewed"), "+ - F": t("zoom, and fit"), "H C": t("boxes: also hidden ones, none, shown ones; contrast"),
};

/** Add a row for each key to a table. */
function list(table, help) {
  for (const [key, words] of Object.entries(help)) {
    const row = table.insertRow();
    row.insertCell().append(element("kbd", {}, key));
    row.insertCell().append(words);
  }
}

/** Call `actions[key](event)` for keys pressed outside of fields; `help` is the text of each key for the list. */
export function bind(actions, help) {
  const dialog = document.getElementById("keys"), on = document.getElementById("keys-on");
  on.checked = localStorage.getItem(SWITCH) !== "off";
  on.addEventListener("change", () => localStorage.setItem(SWITCH, on.checked ? "on" : "off"));
  list(document.getElementById("keys-table"), help);
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, textarea, select, dialog")) return;
    if (event.target.closest("a, button, summary") && ["Enter", " "].includes(event.key)) return;
    if (event.key === "?") return dialog.showModal();
    const held = event.ctrlKey || event.metaKey;
    if (event.altKey || (!held && !on.checked && event.key.length === 1)) return;
    const small = event.key.toLowerCase(), key = event.key.length > 1 || !event.shiftKey ? small : event.key.toUpperCase(); // with any Caps Lock
    const action = held ? !event.shiftKey && actions[`Ctrl+${small}`] : (actions[key] ?? actions[event.key] ?? actions[small] ?? (event.shiftKey && actions[`Shift+${event.code}`]));
    if (!action) return;
    event.preventDefault();
    action(event);
  });
}

const all = document.getElementById("all-keys"); // on the page of the session
if (all) list(all, KEYS);
