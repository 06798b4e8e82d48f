// The clock of a camera: the seconds to add, from what it showed and the right time then; and times before and after.

import { element } from "./page.js";

const seconds = (text) => Date.parse(`${text}Z`) / 1000; // times without a zone, calculated as if they were UTC
const words = (time) => new Date(time * 1000).toISOString().slice(0, 19).replace("T", " ");

function draw(place) {
  const fields = place.closest("form")?.elements, offset = fields ? fields.clock_offset_s.value : place.dataset.offset;
  const times = [place.dataset.first || fields?.from_local.value, place.dataset.last].filter((text) => text && offset !== "");
  place.replaceChildren(...times.flatMap((text) => {
    const time = seconds(text);
    return [element("s", {}, words(time)), " → ", element("strong", {}, words(time + Number(offset))), element("br")];
  }));
}

document.addEventListener("input", ({ target }) => {
  const place = target.form?.querySelector(".example");
  if (!place) return;
  const [shown, right] = ["camera", "right"].map((clock) => target.form.querySelector(`[data-clock=${clock}]`).value);
  if (target.dataset.clock && shown && right) target.form.elements.clock_offset_s.value = seconds(right) - seconds(shown);
  draw(place);
});
for (const place of document.querySelectorAll(".example")) draw(place);
