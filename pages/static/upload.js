// Send files one by one to the detectors, and show what came of each. States are those of the answers; nothing is kept.

import { json, Refused, root, t } from "./page.js";

const AT_ONCE = 3, ASK_S = 2, MOST_ASKED = 60, RETRIED = [429, 503];
const at = (id) => document.getElementById(id);
const settings = at("for"), form = at("send");
const WORDS = { pending: t("waiting"), processing: t("processing"), completed: t("completed"), failed: t("failed") };
const items = []; // {file, camera, model, state, row, answer, why}
let sending = 0, asking = null, drawing = null;

/** Return the labels of an answer with their numbers: "2 deer, 1 fox". */
export function counted(detections) {
  const counts = new Map();
  for (const { label } of detections) counts.set(label, (counts.get(label) ?? 0) + 1);
  return [...counts].map(([label, n]) => `${n} ${label}`).join(", ") || t("none");
}

/** Return what is missing in a stored image: its time, its camera. */
export function missing(media) {
  return [media.captured_at_local ? "" : t("no time in the file"), media.camera_id ? "" : t("no camera")].filter(Boolean);
}

function fill(cell, words, waits = false) {
  cell.textContent = words;
  cell.className = waits ? "waits" : "";
}

function show(item, state, words = "") {
  item.state = state;
  const [name, status, detections, camera, time] = item.row.cells, answer = item.answer;
  fill(status, words ? `${WORDS[state]}: ${words}` : WORDS[state]);
  if (answer) {
    const media = answer.media, link = document.createElement("a");
    link.href = `${root}/images/${media.media_sha256}`;
    link.textContent = item.file.name;
    name.replaceChildren(link);
    fill(status, `${WORDS[state]}, ${media.is_new ? t("new") : t("known already")}`);
    fill(detections, counted(answer.detections));
    fill(camera, media.camera_id ?? t("no camera"), !media.camera_id);
    fill(time, media.captured_at_local?.replace("T", " ").slice(0, 19) ?? t("no time in the file"), !media.captured_at_local);
  }
  drawing ??= requestAnimationFrame(summarise);
}

function summarise() {
  drawing = null;
  const of = (state) => items.filter((item) => item.state === state);
  const failed = of("failed"), done = items.filter((item) => item.answer);
  at("sent").hidden = !items.length;
  at("progress").max = items.length;
  at("progress").value = done.length + failed.length;
  at("summary").textContent = t("{n} of {all} files: {done} completed, {busy} processing, {failed} failed", {
    n: done.length + failed.length, all: items.length, done: of("completed").length, busy: of("processing").length, failed: failed.length });
  at("failed").hidden = !failed.length;
  at("failures").replaceChildren(...failed.map((item) => {
    const line = document.createElement("li");
    line.textContent = `${item.file.name}: ${item.why}`;
    return line;
  }));
  const doubtful = done.filter((item) => missing(item.answer.media).length).length;
  at("doubts").textContent = doubtful ? t("{n} images lack a time or a camera. They are stored, but are in no day or place.", { n: doubtful }) : "";
}

function add(files) {
  const { camera, model } = Object.fromEntries(new FormData(settings));
  for (const file of files) {
    const row = at("files").insertRow();
    for (let cells = 0; cells < 5; cells++) row.insertCell();
    row.cells[0].textContent = file.name;
    items.push({ file, camera, model, row });
    show(items.at(-1), "pending");
  }
  work();
}

function work() {
  for (let item; sending < AT_ONCE && (item = items.find(({ state }) => state === "pending")); ) {
    sending++;
    show(item, "processing");
    send(item).finally(() => {
      sending--;
      work();
    });
  }
}

async function send(item) {
  const query = new URLSearchParams({ model: item.model, camera: item.camera });
  for (;;) {
    try {
      item.answer = await json(`//v1/images?${query}`, { method: "POST", body: item.file });
      show(item, item.answer.recorded ? "completed" : "processing");
      asking ??= ask().finally(() => (asking = null));
      return;
    } catch (error) {
      item.why = error.message;
      if (!(error instanceof Refused) || !RETRIED.includes(error.status) || !error.retryS) return show(item, "failed", error.message);
      show(item, "processing", error.message);
      await new Promise((done) => setTimeout(done, error.retryS * 1000));
    }
  }
}

/** Ask for the rows of the images that are stored, but were not recorded yet when the answer came. */
async function ask() {
  for (let asked = 0; asked < MOST_ASKED; asked++) {
    const item = items.find(({ state, answer }) => state === "processing" && answer);
    if (!item) return;
    try {
      await json(`/v1/images/${item.answer.media.media_sha256}`);
      show(item, "completed");
      asked = 0;
    } catch {
      await new Promise((done) => setTimeout(done, ASK_S * 1000)); // no row yet, or no answer
    }
  }
}

function chosen(files) {
  if (settings.reportValidity()) add(files);
}

form?.addEventListener("submit", (event) => {
  event.preventDefault();
  chosen(form.elements.image.files);
  form.reset();
});
form?.addEventListener("dragover", (event) => event.preventDefault());
form?.addEventListener("drop", (event) => {
  event.preventDefault();
  chosen(event.dataTransfer.files);
});
settings?.addEventListener("submit", (event) => event.preventDefault());
at("again")?.addEventListener("click", () => {
  for (const item of items) if (item.state === "failed") show(item, "pending");
  work();
});
for (const node of document.querySelectorAll(".no-script")) node.remove();
addEventListener("beforeunload", (event) => {
  if (items.some(({ state, answer }) => (state === "pending" || state === "processing") && !answer)) event.preventDefault();
});
