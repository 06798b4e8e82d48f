// Show the camera, time and place of chosen files; then send them to the detectors, and show what came of each. Nothing is kept.

import { element, json, pause, Refused, root, t } from "./page.js";

const AT_ONCE = 3, WAIT_S = 2, ROWS_S = 7, MAX_WAITS = 60, HEAD_BYTES = 256 * 1024, RETRIED = [429, 503], MAX_RETRY_S = 60;
const at = (id) => document.getElementById(id);
const settings = at("for"), form = at("send"), list = document.querySelector("#sent tbody");
const WORDS = { chosen: t("being looked at"), ready: t("not sent yet"), pending: t("waiting"), processing: t("processing"), completed: t("completed"), failed: t("failed") };
let items = []; // {file, camera, model, state, isChecked, row, media, answer, why}; media is what the catalogue has, or will have
let busy = 0, waiting = null, drawing = null;

/** Return whether the person has not sent the file yet. */
const isUnsent = ({ state }) => ["chosen", "ready"].includes(state);

/** Return the labels of an answer with their numbers: "2 deer, 1 fox". */
function counted(detections) {
  const counts = new Map();
  for (const { label } of detections) counts.set(label, (counts.get(label) ?? 0) + 1);
  return [...counts].map(([label, n]) => `${n} ${label}`).join(", ") || t("none");
}

function fill(cell, words, waits = false) {
  cell.textContent = words;
  cell.className = waits ? "waits" : "";
}

function show(item, state, words = "") {
  item.state = state;
  const [name, status, detections, camera, time, place] = item.row.cells, { answer, media } = item;
  fill(status, words ? `${WORDS[state]}: ${words}` : WORDS[state]);
  if (answer) {
    name.replaceChildren(element("a", { href: `${root}/images/${media.media_sha256}` }, item.file.name));
    const known = item.file_known ? t("known already, as {file}", { file: item.file_known }) : media.is_new ? t("new") : t("known already");
    fill(status, state === "completed" ? `${WORDS[state]}, ${known}` : WORDS[state]);
    fill(detections, counted(answer.detections));
  }
  if (media) {
    const isDoubtful = !media.captured_at_local || media.timestamp_flags?.length;
    fill(camera, media.camera_id ?? t("no camera"), !media.camera_id);
    fill(time, media.captured_at_local?.replace("T", " ").slice(0, 19) ?? t("no time in the file"), isDoubtful);
    if ("location" in media) fill(place, media.location ?? t("unknown"));
  }
  drawing ??= requestAnimationFrame(summarise);
}

function summarise() {
  drawing = null;
  const of = (state) => items.filter((item) => item.state === state);
  const failed = of("failed"), done = items.filter((item) => item.answer), unsent = items.filter(isUnsent);
  form.querySelector(".main").disabled = !unsent.length || unsent.some(({ media }) => !media); // a second check leaves it: its cause may be the click
  at("clear").disabled = !unsent.length;
  at("sent").hidden = !items.length;
  at("progress").max = items.length;
  at("progress").value = done.length + failed.length;
  at("summary").textContent = unsent.length ? t("Not sent yet: {n}. Check camera and time.", { n: unsent.length }) : t("{n} of {all} files: {done} completed, {busy} processing, {failed} failed", {
    n: done.length + failed.length, all: items.length, done: of("completed").length, busy: of("processing").length, failed: failed.length });
  at("failed").hidden = !failed.length;
  at("failures").replaceChildren(...failed.map((item) => element("li", {}, `${item.file.name}: ${item.why}`)));
  const doubtful = items.filter(({ media }) => media && !(media.captured_at_local && media.camera_id)).length;
  at("doubts").textContent = doubtful ? t("Without a time or a camera: {n}. Such images belong to no day or place.", { n: doubtful }) : "";
}

function add(files) {
  const { camera, model } = Object.fromEntries(new FormData(settings));
  for (const file of files) {
    const row = list.insertRow();
    row.append(element("td", {}, file.name), ...Array.from({ length: 5 }, () => element("td")));
    items.push({ file, camera, model, row });
    show(items.at(-1), "chosen");
  }
  work();
}

function work() {
  for (let item; busy < AT_ONCE && (item = items.find(({ state, isBusy }) => !isBusy && ["chosen", "pending"].includes(state))); ) {
    busy++;
    item.isBusy = true;
    (item.isChecked ? send : check)(item).finally(() => {
      busy--;
      item.isBusy = false;
      work();
    });
  }
}

/** Return the answer to a file or its beginning. Throws as `json`, and for one that the browser cannot read. */
async function post(path, body) {
  await body.slice(0, 1).arrayBuffer().catch(() => { throw new Error(t("It cannot be read: choose files, not a folder, and leave the card in its reader.")); });
  return json(path, { method: "POST", body });
}

/** Read what the catalogue will have of a file, from its beginning. */
async function check(item) {
  const { camera } = item;
  try {
    item.media = await post(`/v1/uploads/check?${new URLSearchParams({ camera })}`, item.file.slice(0, HEAD_BYTES));
    item.isChecked = camera === item.camera; // else it is checked again
    if (item.isChecked && item.state === "chosen") show(item, "ready");
  } catch (error) {
    show(item, "failed", (item.why = error.message));
  }
}

async function send(item) {
  const query = new URLSearchParams({ model: item.model, camera: item.camera });
  show(item, "processing");
  for (;;) {
    try {
      const answer = await post(`//v1/images?${query}`, item.file);
      Object.assign(item, { answer, rowsAt: Date.now() + ROWS_S * 1000, media: { ...item.media, ...answer.media } });
      show(item, answer.recorded ? "completed" : "processing");
      waiting ??= rowsOfAll().finally(() => (waiting = null));
      return;
    } catch (error) {
      item.why = error.message;
      if (!(error instanceof Refused) || !RETRIED.includes(error.status) || !error.retryS || error.retryS > MAX_RETRY_S) return show(item, "failed", error.message);
      show(item, "processing", error.message);
      await pause(error.retryS * 1000);
    }
  }
}

/** Wait for the rows of the images that are stored, but were not recorded yet when the answer came. */
async function rowsOfAll() {
  for (let waits = 0; waits < MAX_WAITS; waits++) {
    const item = items.find(({ state, answer }) => state === "processing" && answer);
    if (!item) return;
    await pause(item.rowsAt - Date.now());
    try {
      const digest = item.answer.media.media_sha256, { files } = await json(`/v1/images/${digest}`);
      item.file_known = files.find((file) => !file.includes(digest)); // of another archive
      show(item, "completed");
      waits = 0;
    } catch {
      item.rowsAt = Date.now() + WAIT_S * 1000; // no row yet, or no answer
    }
  }
}

function chosen(files) {
  if (settings.reportValidity()) add(files);
}

form?.addEventListener("change", () => {
  chosen(form.elements.image.files);
  form.reset();
});
form?.addEventListener("submit", (event) => {
  event.preventDefault();
  for (const item of items) if (isUnsent(item)) show(item, "pending");
  work();
});
at("clear")?.addEventListener("click", () => {
  for (const item of items) if (isUnsent(item)) item.row.remove();
  items = items.filter((item) => !isUnsent(item));
  summarise();
});
settings?.addEventListener("change", () => {
  for (const item of items) if (isUnsent(item)) show(Object.assign(item, Object.fromEntries(new FormData(settings)), { isChecked: false }), "chosen");
  work();
});
form?.addEventListener("dragover", (event) => event.preventDefault());
form?.addEventListener("drop", (event) => {
  event.preventDefault();
  chosen(event.dataTransfer.files);
});
settings?.addEventListener("submit", (event) => event.preventDefault());
at("again")?.addEventListener("click", () => {
  const { camera, model } = Object.fromEntries(new FormData(settings)); // the cause may be an invalid one
  for (const item of items) if (item.state === "failed") item.media ? show(Object.assign(item, { model }), "pending") : show(Object.assign(item, { camera, model }), "chosen");
  work();
});
addEventListener("beforeunload", (event) => {
  if (items.some(({ state, answer }) => ["pending", "processing"].includes(state) && !answer)) event.preventDefault();
});
