// The filter in the address of a list or a picture. Actions use what its boxes contain, also before they are applied.

import { notice, request } from "./page.js";

const boxes = document.querySelector("form[role=search]");
const filled = (form) => [...new FormData(form)].filter(([, value]) => value);

const OF_PAGE = ["at", "crops", "order", "run", "shown"]; // what is about the page itself
export const address = new URLSearchParams([...new URLSearchParams(location.search)].filter(([, value]) => value));
export const filter = new URLSearchParams([...address].filter(([name]) => !OF_PAGE.includes(name)));
export const view = filter.has("view") ? { view: filter.get("view") } : {};
export const query = (more = {}) => new URLSearchParams({ ...Object.fromEntries(filter), ...more }).toString();

/** Return whether the boxes are valid; if not, the browser shows why. */
export const isValid = () => boxes?.reportValidity() ?? true;

/** Return the filter of the boxes, or null if it is the one that the page was made with. */
export function changed() {
  const made = boxes?.cloneNode(true);
  made?.reset();
  return boxes && String(filled(made)) !== String(filled(boxes)) ? Object.fromEntries(filled(boxes)) : null;
}

/** Open this page with the changed boxes, and with `more` in its address; return false if there is nothing to apply. */
export function apply(more = {}) {
  const wanted = isValid() && changed();
  if (wanted) location.search = new URLSearchParams({ ...wanted, ...more });
  return wanted !== null;
}

/** Let links with data-filter lead to the filter of the boxes. */
function lead() {
  for (const link of document.querySelectorAll("a[data-filter]")) link.search = new URLSearchParams(changed() ?? query());
}
addEventListener("pageshow", lead); // the browser may restore boxes
boxes?.addEventListener("input", lead);

/** Show the parts with data-filtered, which the server makes, as they are for the boxes. */
async function redraw() {
  const parts = document.querySelectorAll("[data-filtered]"), wanted = filled(boxes);
  if (!parts.length || !boxes.checkValidity()) return;
  const answer = await request(`/${location.pathname}?${new URLSearchParams(wanted)}`);
  const made = new DOMParser().parseFromString(await answer.text(), "text/html").querySelectorAll("[data-filtered]");
  if (String(wanted) === String(filled(boxes))) parts.forEach((part, i) => (part.textContent = made[i].textContent));
}
boxes?.addEventListener("change", () => redraw().catch((error) => notice(error.message, 0)));
