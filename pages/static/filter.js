// The preview of a filter: its counts, and examples of what a run would change. The run can be started from then on.

import { element, root, t } from "./page.js";

const form = document.getElementById("filter"), section = document.getElementById("preview");
const COUNTS = { checked: t("detections or images judged"), flagged: t("with an action"), changed: t("changed, also below the score that is shown"),
  skipped_human: t("kept, as a person has judged them"), skipped_invalid: t("not judged, for lack of values"),
  added: t("rows added to the layer"), withdrawn: t("of these, earlier ones taken back") };
const AFTER = { suppress: t("hidden"), withdraw: t("shown as before") };

function card([name, count]) {
  return element("div", { className: "card" }, element("dt", {}, name), element("dd", { className: "number" }, String(count)));
}

function item(example) {
  const { media_sha256: digest, box_px: box, camera_id: camera, label, score } = example;
  const before = label ? `${label} ${(score ?? 0).toFixed(2)}` : t("whole image");
  const after = AFTER[example.action] ?? example.new_label ?? example.reason;
  const part = box ? `crop?${new URLSearchParams({ x1: box[0], y1: box[1], x2: box[2], y2: box[3], w: 224 })}` : "thumbnail?w=320";
  const picture = element("img", { loading: "lazy", width: 224, height: 168, alt: `${before}, ${camera ?? ""}`, src: `${root}/v1/images/${digest}/${part}` });
  return element("li", {}, element("a", { href: `${root}/images/${digest}` }, picture),
    `${before} → ${after} `, element("span", { className: "quiet" }, `${camera ?? ""} ${example.reason}`));
}

form.addEventListener("answered", (event) => {
  const { report, examples } = event.detail;
  if (!report) return;
  event.preventDefault();
  section.querySelector("dl").replaceChildren(...[[t("images read"), report.images], ...Object.entries(COUNTS).map(([name, words]) => [words, report.tally[name]])].map(card));
  const nothing = t("Nothing would change: the layer has these rows already, or the filter finds nothing.");
  section.querySelector("ul").replaceChildren(...(examples.length ? examples.map(item) : [element("li", {}, nothing)]));
  section.hidden = false;
});
