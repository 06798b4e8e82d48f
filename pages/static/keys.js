// Keys of a page: single keys that a person can switch off, and the list of them at "?".

import { list } from "./key_list.js";

const SWITCH = "resight.keys";

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
    const action = held ? actions[`Ctrl+${event.key}`] : (actions[event.key] ?? actions[event.key.toLowerCase()]);
    if (!action) return;
    event.preventDefault();
    action(event);
  });
}
