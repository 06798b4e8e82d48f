// What is next to a picture and below it: its boxes, those of a second set, its statements and facts, and the strip of its burst.

import { ACTION, element, root, STATUS, t } from "./page.js";
import { query } from "./address.js";
import { who } from "./decisions.js";

const fill = (id, items) => document.getElementById(id).replaceChildren(...items);
const nameOf = (box) => `${box.label ?? "?"} ${box.score === null ? "" : box.score.toFixed(2)}`;

/** Show the boxes, statements and facts of an image; `second` are the boxes of another run. `choose(index)` is called for a box, `takeBack(said)` for a statement. */
export function drawPanel(image, selected, second, choose, takeBack) {
  fill("boxes", image.boxes.map((box, index) => {
    const button = element("button", { "aria-pressed": index === selected, onclick: () => choose(index) }, nameOf(box));
    const state = box.is_human ? (box.is_shown ? t("confirmed") : t("rejected")) : box.is_shown ? "" : t("hidden");
    const model = box.model_label && box.model_label !== box.label ? t("model: {label}", { label: box.model_label }) : "";
    return element("li", {}, button, element("span", { className: "quiet" }, [state, model, box.reason].filter(Boolean).join(", ")));
  }));
  fill("second", second.map((box) => element("li", {}, nameOf(box))));
  fill("statements", image.statements.map((said) => {
    const words = `${new Date(said.asserted_at).toISOString().slice(0, 16).replace("T", " ")} UTC ${said.actor}: ${ACTION[said.action]} ${said.label ?? ""} `;
    const isOwn = said.stands && said.batch_id && said.actor === who && said.action !== "withdraw";
    return element("li", { className: said.stands ? "" : "quiet past" }, words, ...(isOwn ? [element("button", { onclick: () => takeBack(said) }, t("Take back"))] : []));
  }));
  const facts = { [t("Files")]: image.files.join("\n"), [t("Size")]: `${image.width_px} × ${image.height_px} px`, [t("Model")]: image.model ?? "",
    [t("Run")]: image.run_id ?? "", ...image.facts };
  fill("facts", Object.entries(facts).filter(([, value]) => value).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

/** Show the images of a burst, of which one is the picture; `columns` are those of the list of its event. */
export function drawStrip(burst, columns, digest, show) {
  document.getElementById("strip").hidden = burst.length < 2;
  fill("strip", (burst.length < 2 ? [] : burst).map((each, i) => {
    const alt = [columns.captured_at_corrected[i], columns.top_label[i] ?? STATUS[columns.status[i]]].filter(Boolean).join(", ");
    const small = element("img", { loading: "lazy", width: 160, height: 120, alt, src: `${root}/v1/images/${each}/thumbnail?w=160` });
    const link = element("a", { href: `${root}/images/${each}?${query()}` }, small);
    if (each === digest) link.setAttribute("aria-current", "true");
    link.addEventListener("click", (event) => (event.preventDefault(), show(each)));
    return element("li", {}, link);
  }));
}
