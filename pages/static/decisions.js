// Decisions of a reviewer, saved one after another: a queue that survives a reload, and undo by batches.

import { json, notice, Refused, t } from "./page.js";

const QUEUE = "resight.queue", DONE = "resight.done", UNDONE = "resight.undone", KEPT = 200;
let saving = null, stopped = false, listener = () => {};

const read = (name) => JSON.parse(sessionStorage.getItem(name) ?? "[]");
const write = (name, value) => sessionStorage.setItem(name, JSON.stringify(value));

/** Return 128 random bits in hex digits; also without a secure context. */
export function batchId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

export const unsaved = () => read(QUEUE).length;

/** Call `changed(entry, answer)` after each saved entry, and `changed()` if the number of unsaved ones changed. */
export function onSaved(changed) {
  listener = changed;
}

/** Queue one decision: {statements} or a {selection}; `media` are the digests it concerns. */
export function decide(said, media) {
  const batch_id = batchId();
  enqueue({ path: "/v1/assertions", body: { batch_id, ...said }, media });
  write(DONE, [...read(DONE), { batch_id, media }].slice(-KEPT));
  write(UNDONE, []);
}

/** Queue the withdrawal of the last decision that was not withdrawn; return its images, or null without one. */
export function undo() {
  const done = read(DONE), last = done.pop();
  if (!last) return null;
  const batch_id = batchId();
  write(DONE, done);
  write(UNDONE, [...read(UNDONE), { ...last, by: batch_id }]);
  enqueue({ path: "/v1/assertions/undo", body: { batch_id, of: last.batch_id }, media: last.media });
  return last.media;
}

/** Queue the last withdrawn decision again; return its images, or null without one. */
export function redo() {
  const undone = read(UNDONE), last = undone.pop();
  if (!last) return null;
  const batch_id = batchId();
  write(UNDONE, undone);
  write(DONE, [...read(DONE), { batch_id, media: last.media }]);
  enqueue({ path: "/v1/assertions/redo", body: { batch_id, of: last.batch_id }, media: last.media });
  return last.media;
}

function enqueue(entry) {
  write(QUEUE, [...read(QUEUE), entry]);
  listener();
  save();
}

/** Send what is queued, in order. The server knows a batch by its id, so sending one again adds nothing. */
export function save() {
  stopped = false;
  saving ??= work().finally(() => (saving = null));
  return saving;
}

async function work() {
  for (let wait = 500; ; ) {
    const [entry] = read(QUEUE);
    if (!entry || stopped) return;
    try {
      const answer = await json(entry.path, { method: "POST", body: entry.body });
      write(QUEUE, read(QUEUE).slice(1));
      wait = 500;
      if (answer.changed_meanwhile?.length) notice(t("Somebody else changed this image meanwhile; both statements are kept."));
      if (answer.kept) notice(t("{n} decisions stay, because {names} decided again later.", { n: answer.kept, names: answer.by.join(", ") }));
      listener(entry, answer);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.status && ![401, 429, 502, 503, 504, 507].includes(error.status)) {
        stopped = true; // the same request would be refused again: a person must decide
        notice(t("Not saved: {why}", { why: error.message }), 0);
        listener(entry, null, error); // it may drop the entry, which goes on with the others
        continue;
      }
      notice(t("Not saved yet: {why} Trying again …", { why: error.message }), 0);
      await new Promise((done) => setTimeout(done, wait));
      wait = Math.min(wait * 2, 8000);
    }
  }
}

/** Drop the entry that the server refused, and go on with the others. */
export function dropRefused() {
  write(QUEUE, read(QUEUE).slice(1));
  listener();
  return save();
}

addEventListener("beforeunload", (event) => {
  if (unsaved()) event.preventDefault();
});
