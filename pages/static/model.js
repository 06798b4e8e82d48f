// The page of a model: how far its shadow agrees with the version that answers, from /metrics, summed over replicas.

import { t } from "./page.js";

const SAMPLE = /^resight_shadow_(images|boxes)_total\{(.*)\} ([\d.e+]+)$/gm;

/** Return the sums of the shadow's counters, by outcome of images and by kind of boxes. */
function sums(text, { model, active, shadow }) {
  const found = {};
  for (const [, , labels, value] of text.matchAll(SAMPLE)) {
    const of = Object.fromEntries([...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, name, word]) => [name, word]));
    if (of.model !== model || of.version !== active || of.shadow !== shadow) continue;
    const name = of.outcome ?? of.kind;
    found[name] = (found[name] ?? 0) + Number(value);
  }
  return found;
}

for (const place of document.querySelectorAll("[data-shadow]")) {
  const answer = await fetch("/metrics").catch(() => null);
  const found = answer?.ok ? sums(await answer.text(), place.dataset) : {};
  const boxes = found.matched + found.only_active + found.only_candidate;
  const share = boxes ? Math.round((100 * (found.matched - found.label_flips)) / boxes) : 100;
  place.textContent = found.compared
    ? t("Agreement: {share} % of {boxes} boxes in {images} images; another label {flips}, only the old {lost}, only the new {new}, failed {failed}.", {
        share, boxes, images: found.compared, flips: found.label_flips, lost: found.only_active, new: found.only_candidate, failed: found.failed })
    : t("Agreement: no image compared yet.");
}
