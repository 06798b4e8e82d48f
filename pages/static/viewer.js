// One image at a time: look, decide by keys, see the next. In review, the list has the images without a decision, and a burst is one decision.

import { element, json, notice, Refused, root, STATUS, t } from "./page.js";
import { address, filter, query, view } from "./address.js";
import { decide, onSaved, redo, save, takeBack, undo, unsaved } from "./decisions.js";
import { Picture } from "./picture.js";
import { drawPanel, drawStrip } from "./panel.js";
import { detailOf, details, firstOf, forget, listed, lookAhead, other, pictureOf, secondOf } from "./images.js";
import { bind, KEYS } from "./keys.js";
import { askLabel, labelsInUse } from "./labels.js";

const FREQUENT = 9, UNDOS = 50, CAMERA = filter.get("camera"), DIGITS = `resight.digits ${CAMERA ?? ""}`;
const viewer = document.getElementById("viewer"), isReview = viewer.dataset.review === "1";
const order = isReview && address.get("order");
const OPEN = filter.get("flagged") === "true" ? {} : { reviewed: "false" }; // flagged images wait for a person, also those with a decision
if (isReview && OPEN.reviewed && !filter.has("reviewed")) filter.set("reviewed", OPEN.reviewed);
const picture = new Picture(document.getElementById("stage"), (index) => choose(index), async (box) => {
  const label = await ask(t("Add"));
  if (label) add(box, label);
});
let image = null, selected = -1, burst = [], labels = [], repeatable = null, queue = [], reached = 0, turns = 0, seen = 0, deciding = false, left = null, coming = null, counting = null, bursting = null, naming = null;
const before = new Map(); // by decision: the image as it was, which an undo shows at once

const besides = (digest) => {
  const at = queue.indexOf(digest), [back, on] = at < 0 ? [reached, reached + 1] : [at - 1, at + 1]; // the queue lacks some images of its burst
  return queue.length ? { previous: queue[back] ?? null, next: queue[on] ?? null } : listed(digest);
};

async function first() {
  if (order === "disagreement" && !other) throw new Refused(0, t("Choose the run to compare with, under Filter and order."));
  if (order) {
    queue = await json(`/v1/images/${order}?${query({ limit: 500, ...(order === "disagreement" ? { run: other } : {}) })}`);
    return queue[0] ?? null;
  }
  return firstOf({});
}

/** Show an image; its data are usually here already, so this takes no request. Nothing is decided until all of it can be seen. */
async function show(digest) {
  const mine = ++turns;
  coming = digest;
  showBusy();
  try {
    const found = digest && await Promise.all([detailOf(digest), secondOf(digest)]);
    if (mine !== turns) return; // another image was requested since
    burst = [];
    if (found) await display(...found);
    else conceal();
  } finally {
    if (mine === turns) [seen, coming] = [mine, null]; // after an error, the image before
    showBusy();
  }
}

/** Show what a search finds: null is the end of the list, undefined the image that is here. Until then, nothing is decided. */
async function go(search, event) {
  if (event?.repeat && isBusy()) return; // a held key continues from an image that can be seen
  const mine = ++turns;
  showBusy();
  try {
    const digest = await search();
    if (mine === turns && (digest !== undefined || coming)) await show(digest === undefined ? coming : digest);
  } finally {
    if (mine === turns) [seen, coming] = [mine, null];
    showBusy();
  }
}

async function display(found, second) {
  const digest = found.media_sha256;
  image = found;
  if (queue.includes(digest)) reached = queue.indexOf(digest);
  reveal(true);
  selected = shownBoxes().length === 1 ? image.boxes.indexOf(shownBoxes()[0]) : -1;
  picture.second = second;
  const url = isReview ? `${root}/review${location.search}` : `${root}/images/${digest}?${new URLSearchParams(location.search)}`;
  history.replaceState(null, "", url);
  draw();
  bursting = drawBurst(digest).catch(fail);
  await Promise.all([picture.visible(), bursting]);
  naming ??= readLabels().catch((error) => ((naming = null), fail(error)));
  lookAhead(digest, besides).catch(() => {}); // the next key tries again, and shows what is wrong
}

/** Show or hide the picture and all about it; the button to undo stays. */
function reveal(isOn) {
  for (const part of viewer.querySelectorAll("#stage, aside > :not(#place, #buttons), #buttons > :not([name=U])")) part.hidden = !isOn;
}

function conceal() {
  image = null;
  reveal(false);
  document.getElementById("strip").replaceChildren();
  const more = left && `${t("End of the list")} — ${t("{n} left", { n: left })}: N`;
  say_place(isReview ? more || t("Nothing is left to review.") : t("End of the list"));
}

const shownBoxes = () => image.boxes.filter((box) => box.is_shown);

function draw() {
  const [width, height] = [image.width_px || 4, image.height_px || 3];
  const alt = [shownBoxes().map((box) => box.label).join(", ") || STATUS[image.status], image.camera_id, image.captured_at_corrected].filter(Boolean).join(", ");
  picture.show({ src: pictureOf(image.media_sha256), full: `${root}/v1/images/${image.media_sha256}/original`, width, height, alt });
  picture.draw(image.boxes, selected);
  drawAside();
}

function drawAside() {
  const heading = [image.captured_at_corrected, image.camera_id].filter(Boolean).join(" · ");
  say_place([heading, image.reviewed ? `✓ ${t("reviewed")}` : "", image.flagged ? `⚑ ${t("flagged")}` : "", image.problem ?? "", left === null ? "" : t("{n} left", { n: left }), unsaved() ? t("{n} unsaved", { n: unsaved() }) : ""].filter(Boolean).join(" — "));
  drawPanel(image, selected, picture.second, choose, run((said) => takeBack(said.batch_id, image.media_sha256)));
}

const say_place = (words) => (document.getElementById("place").textContent = words);

function choose(index) {
  selected = selected === index ? -1 : index;
  draw();
}

// bursts

async function drawBurst(digest) {
  const { columns, index_version } = image.event_id ? await json(`/v1/images?${new URLSearchParams({ ...view, event_id: image.event_id, limit: 500 })}`) : { columns: { media_sha256: [] } };
  if (image?.media_sha256 !== digest) return;
  burst = columns.media_sha256.includes(digest) ? columns.media_sha256 : []; // an event may have more images than a page
  burst.version = index_version;
  burst.undecided = columns.reviewed?.filter((is) => !is).length;
  burst.empty = columns.status?.filter((status, i) => status === "empty" && !columns.reviewed[i]).length;
  drawStrip(burst, columns, digest, (each) => show(each).catch(fail));
}

// labels: the first have digits, which keep their meaning in a tab; those of the filter's camera come first

async function readLabels() {
  const used = (await Promise.all([CAMERA && labelsInUse({ ...view, camera: CAMERA }), labelsInUse()])).flat(), kept = JSON.parse(sessionStorage.getItem(DIGITS) ?? "[]");
  labels = [...new Set([...kept, ...used, ...labels])].filter(Boolean);
  drawLabels();
}

function drawLabels() {
  sessionStorage.setItem(DIGITS, JSON.stringify(labels.slice(0, FREQUENT)));
  const names = [["Enter", t("Confirm")], ["0", t("Empty")], ["X", t("Reject")], ["L", t("Label …")], ["B", t("Draw")], ["U", t("Undo")],
    ...labels.slice(0, FREQUENT).map((label, i) => [String(i + 1), label])];
  document.getElementById("buttons").replaceChildren(...names.map(([key, words]) => {
    const press = keys[key.toLowerCase()] ?? keys[key];
    const onclick = (event) => (press(event), event.detail && document.getElementById("stage").focus({ preventScroll: true })); // else Enter would press it again
    return element("button", { name: key, onclick }, element("kbd", {}, key), words);
  }));
}

/** Request a label from the person; return null if another image is shown by then. */
async function ask(verb) {
  const digest = image.media_sha256, label = await askLabel(labels, verb);
  if (label && !labels.includes(label)) {
    labels.push(label);
    drawLabels();
  }
  document.getElementById("stage").focus();
  return image?.media_sha256 === digest ? label : null;
}

// statements

const corners = (box) => Object.fromEntries(["x1_px", "y1_px", "x2_px", "y2_px"].map((name) => [name, Math.fround(box[name])])); // as they are stored

/** Return a statement about a box: of the model by its rank, of a person by its corners. */
function place(box, action, label) {
  const isDrawn = box.rank === null || box.rank === undefined;
  const named = isDrawn ? corners(box) : { inference_key: box.inference_key, rank: box.rank };
  if (isDrawn && action === "relabel") action = "add"; // no box of a model would carry the label
  const seen = box.is_human ? { seen: box.assertion_id } : {};
  return { action, media_sha256: image.media_sha256, ...named, ...(label ? { label } : {}), ...seen };
}

function say(statements) {
  if (!statements.length) return;
  conclude({ statements }, [image.media_sha256]);
}

/** Count how many of the filter still lack a decision, until the list has all that was decided. */
async function countLeft() {
  clearTimeout(counting);
  if (!isReview) return;
  const { count, behind_s } = await json(`/v1/images/count?${query(OPEN)}`);
  if (behind_s || unsaved()) return void (counting = setTimeout(() => countLeft().catch(fail), 2000));
  left = count;
  if (image) drawAside();
  else if (turns && seen === turns) conceal();
}

/** Queue a decision and mark its images as decided at once; the server's answer replaces this. */
function conclude(said, media) {
  const taken = media.length > 1 ? burst.undecided : image.reviewed ? 0 : 1;
  before.set(decide(said, media, taken), image);
  if (before.size > UNDOS) before.delete(before.keys().next().value);
  forget(media);
  if (left !== null) left = Math.max(0, left - taken);
  image = { ...image, reviewed: true };
  drawAside();
}

/** Return the statement that the image is empty; `seen` is its newest statement. */
function emptied() {
  const newest = image.statements.find((said) => said.stands);
  return { action: "suppress", media_sha256: image.media_sha256, ...(newest ? { seen: newest.assertion_id } : {}) };
}

/** Decide the whole burst, or this image, and show the next. */
async function settle(action, alone) {
  const media = alone || burst.length < 2 ? [image.media_sha256] : burst;
  repeatable = () => settle(action, alone);
  if (media.length > 1) {
    if (action === "keep" && burst.empty) notice(t("Now empty, as they have no box: {n} pictures. U takes it back.", { n: burst.empty }));
    conclude({ selection: { ...view, digests: media, count: media.length, index_version: burst.version, action } }, media);
  } else {
    const boxes = shownBoxes();
    if (action === "keep" && !boxes.length && image.status !== "empty" && image.status !== "ok") return notice(t("There is nothing to confirm: 0 marks the image as empty."));
    say(action === "keep" && boxes.length ? boxes.filter((box) => box.rank !== null).map((box) => place(box, "keep", box.label)) : [emptied()]);
    if (action === "keep" && boxes.length && boxes.every((box) => box.rank === null)) notice(t("Nothing to confirm: people drew these boxes."));
  }
  await onward(media);
}

/** Return the next or previous image that is not among these. */
async function beyond(media, name = "next") {
  let digest = image.media_sha256;
  do digest = (await besides(digest))[name];
  while (digest && media.includes(digest));
  return digest;
}

async function onward(media) {
  const at = turns, digest = await beyond(media);
  if (at === turns) await show(digest); // unless another was requested since, as by an undo
}

/** Return the next image without a decision; after the last one, the first. */
async function undecided() {
  const next = image && (await json(`/v1/images/${image.media_sha256}/neighbours?${query(OPEN)}`)).next;
  if (!next) await save();
  return next ?? firstOf(OPEN);
}

async function nextEvent(name) {
  await bursting;
  return (await beyond(burst, name)) ?? undefined;
}

/** Flag the image for colleagues: this decides nothing, so the image stays in the review. */
async function flag() {
  before.set(decide({ statements: [{ action: "flag", media_sha256: image.media_sha256 }] }, [image.media_sha256]), image);
  details.delete(image.media_sha256);
  await onward([image.media_sha256]);
}

async function relabel(label) {
  const boxes = selected >= 0 ? [image.boxes[selected]] : shownBoxes();
  if (!boxes.length) return notice(viewer.querySelector("#stage .box") ? t("Choose a box first: J and K, or a click.") : t("No box: draw one with B."));
  repeatable = () => relabel(label);
  const media = [image.media_sha256], isWhole = selected < 0 || !shownBoxes().some((box) => box !== image.boxes[selected]);
  say(boxes.map((box) => place(box, "relabel", label)));
  change(boxes, { label, is_shown: true });
  if (isWhole) await onward(media);
}

async function reject() {
  if (selected < 0) return notice(t("Choose a box first: J and K, or a click."));
  say([place(image.boxes[selected], "suppress")]);
  change([image.boxes[selected]], { is_shown: false });
}

/** Add what a person drew, also to the boxes here: Enter right afterwards must not state that the image is empty. */
function add(box, label) {
  say([place(box, "add", label)]);
  alter([...image.boxes, { ...box, label, rank: null, score: null, is_human: true, is_shown: true }]);
}

/** Show a decision about some boxes at once. */
function change(decided, values) {
  alter(image.boxes.map((box) => (decided.includes(box) ? { ...box, is_human: true, ...values } : box)));
}

/** Replace the boxes here, also for who comes back to the image, until the server has answered. */
function alter(boxes) {
  image = { ...image, boxes };
  details.set(image.media_sha256, Promise.resolve(image));
  draw();
}

const isSame = (a, b) => (a.rank === null ? b.rank === null && JSON.stringify(corners(a)) === JSON.stringify(corners(b)) : a.rank === b.rank && a.inference_key === b.inference_key);

/** Read the image again once everything queued is saved. */
async function refresh() {
  await save();
  const digest = image.media_sha256;
  details.delete(digest);
  const fresh = await detailOf(digest);
  if (image?.media_sha256 !== digest) return;
  const chosen = image.boxes[selected];
  image = fresh;
  selected = chosen ? image.boxes.findIndex((box) => isSame(chosen, box)) : -1;
  draw();
  if (burst.length > 1) bursting = drawBurst(digest).catch(fail); // others of it may be undecided again
}

/** Show the images of an undo or a redo. The image as it was needs no answer; `onSaved` reads it again. */
async function back(entry, words, by) {
  if (!entry) return notice(t("Nothing to take back."));
  const { media, batch_id, taken = 0 } = entry, was = before.get(batch_id);
  if (left !== null) left = Math.max(0, left + by * taken);
  await go(async () => {
    if (!was) await save();
    forget(media);
    if (was) details.set(was.media_sha256, Promise.resolve(was));
    return was?.media_sha256 ?? media[0] ?? image?.media_sha256 ?? null; // a selection of the grid has no image here
  });
  notice(words, 2000);
}

onSaved((entry) => {
  if (image) drawAside();
  if (!entry) return;
  forget(entry.media);
  countLeft().catch(fail);
  if (image && (!entry.media.length || entry.media.includes(image.media_sha256))) refresh().catch(fail);
});

function fail(error) {
  if (error instanceof Refused) notice(error.message, 0);
  else throw error;
}

const step = (name, event) => image && go(async () => (await besides(image.media_sha256))[name] ?? image.media_sha256, event);
const stepEvent = (name, event) => go(() => nextEvent(name), event);
const run = (work) => (...given) => Promise.resolve(work(...given)).catch(fail);
const isBusy = () => deciding || seen !== turns;
const showBusy = () => document.getElementById("stage").setAttribute("aria-busy", isBusy());
/** One decision at a time: a key that is held, a second click, or one before the picture with its boxes and burst can be seen, does nothing. */
const decision = (work) => run(async (event) => {
  if (isBusy() || !image || event?.repeat || event?.detail > 1) return;
  deciding = true;
  showBusy();
  try {
    await work(event);
  } finally {
    deciding = false;
    showBusy();
  }
});
const needsImage = (work) => run((...given) => image && work(...given));
const isDrawing = () => picture.drawing !== null;
const nudge = (dx, dy) => (event) => (picture.nudge(dx, dy, event?.shiftKey), picture.draw(image.boxes, selected));
const arrow = (dx, dy, otherwise) => needsImage((event) => (isDrawing() ? nudge(dx, dy)(event) : otherwise(event)));
const turn = (by) => () => {
  const n = image.boxes.length, to = n ? (selected + by + n) % n : -1;
  if (to !== selected) choose(to); // an only box stays chosen
};

const keys = {
  Enter: decision((event) => (isDrawing() ? picture.finishDrawing(true) : settle("keep", event?.shiftKey))),
  "0": decision((event) => settle("suppress", event?.shiftKey)),
  "Shift+Digit0": decision(() => settle("suppress", true)), // on most keyboards, 0 with Shift is another sign
  x: decision(reject),
  l: decision(async () => {
    const label = await ask();
    if (label) await relabel(label);
  }),
  r: decision(() => repeatable?.()),
  u: run(() => back(undo(), t("Taken back."), 1)),
  "Ctrl+z": run(() => back(undo(), t("Taken back."), 1)),
  U: run(() => back(redo(), t("Done."), -1)),
  b: decision(() => (picture.startDrawing(), picture.draw(image.boxes, selected))),
  Escape: needsImage(() => (picture.finishDrawing(false), picture.draw(image.boxes, selected))),
  ArrowLeft: arrow(-1, 0, (event) => step("previous", event)),
  ArrowRight: arrow(1, 0, (event) => step("next", event)),
  ArrowUp: arrow(0, -1, (event) => stepEvent("previous", event)),
  ArrowDown: arrow(0, 1, (event) => stepEvent("next", event)),
  w: needsImage((event) => stepEvent("previous", event)),
  s: needsImage((event) => stepEvent("next", event)),
  m: decision(flag),
  g: needsImage(() => location.assign(`${root}/images?${query(image.captured_at_corrected ? { at: `${image.captured_at_corrected.replace(" ", "T")}.999999` } : {})}`)),
  a: run((event) => step("previous", event)),
  d: run((event) => step("next", event)),
  n: run((event) => go(undecided, event)),
  j: needsImage(turn(1)),
  k: needsImage(turn(-1)),
  "+": needsImage(() => picture.zoomBy(1.25)),
  "-": needsImage(() => picture.zoomBy(0.8)),
  f: needsImage(() => picture.fit()),
  h: needsImage(() => ((picture.boxes = (picture.boxes + 1) % 3), picture.draw(image.boxes, selected))),
  c: needsImage(() => picture.stage.classList.toggle("contrast")),
};
for (let i = 1; i <= FREQUENT; i++) keys[i] = decision(() => labels[i - 1] && relabel(labels[i - 1]));
bind(keys, KEYS);

save();
run(countLeft)();
run(async () => show(viewer.dataset.image || (await first())))().then(() => document.getElementById("stage").focus({ preventScroll: true }));
