// Decisions of a reviewer, saved one after another: a queue that survives a reload, and undo by batches.

import { json, notice, pause, Refused, t } from "./page.js";

export const who = document.documentElement.dataset.who;
const QUEUE = "resight.queue", DONE = `resight.done ${who}`, UNDONE = `resight.undone ${who}`, KEPT = 200, DIGESTS = 20_000;
let saving = null, stopped = false, listener = () => {};

const read = (name) => JSON.parse(sessionStorage.getItem(name) ?? "[]");
const write = (name, value) => sessionStorage.setItem(name, JSON.stringify(value));

/** Return 128 random bits in hex digits; also without a secure context. */
export function batchId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

export const unsaved = () => read(QUEUE).length;

/** Call `changed(entry, answer)` after each saved entry, and `changed()` if the number of unsaved ones changed; `answer` is null if it was dropped. */
export function onSaved(changed) {
  listener = changed;
}

/** Queue one decision: {statements} or a {selection}; return its id. `media` are its digests, `taken` of them lacked a decision. */
export function decide(said, media, taken = 0) {
  const batch_id = batchId();
  enqueue("", { batch_id, ...said }, media);
  let room = DIGESTS; // of bursts, the browser's store would be full: it takes 5 MB
  const newest = [{ batch_id, media, taken }, ...read(DONE).reverse()].slice(0, KEPT).filter((done) => (room -= done.media.length) >= 0);
  write(DONE, newest.reverse());
  write(UNDONE, []);
  return batch_id;
}

/** Queue the withdrawal of the last decision that was not withdrawn; return {batch_id, media, taken}, or null without one. */
export const undo = () => again("/undo", DONE, UNDONE);

/** Queue the last withdrawn decision again; return it, or null without one. */
export const redo = () => again("/redo", UNDONE, DONE);

function again(path, from, to) {
  const left = read(from), last = left.pop(), batch_id = batchId();
  if (!last) return null;
  write(from, left);
  write(to, [...read(to), path === "/undo" ? last : { ...last, batch_id }]);
  enqueue(path, { batch_id, of: last.batch_id }, last.media);
  return last;
}

/** Queue the withdrawal of an earlier decision, of any session; if it covers several images, the person agrees first. */
export async function takeBack(of, digest) {
  const { batches } = await json(`/v1/assertions?${new URLSearchParams({ media: digest, actor: who, limit: 500 })}`);
  const n = batches.find(({ batch_id }) => batch_id === of)?.images ?? 1;
  if (n > 1 && !confirm(t("Take this decision back in {n} images?", { n }))) return;
  write(DONE, read(DONE).filter(({ batch_id }) => batch_id !== of)); // it cannot be undone again
  enqueue("/undo", { batch_id: batchId(), of }, n > 1 ? [] : [digest]);
  notice(t("Taken back."), 2000);
}

/** Queue a request. It names who decided, because another person may have signed in when it is sent. */
function enqueue(path, body, media) {
  write(QUEUE, [...read(QUEUE), { path: `/v1/assertions${path}`, body: { sender: who, ...body }, media }]);
  listener();
  save();
}

/** Send what is queued, in order. The server identifies a batch by its id, so sending one again adds nothing. */
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
      if (wait > 500) notice(""); // it reports a failed attempt
      wait = 500;
      if (answer.changed_meanwhile?.length) notice(t("Somebody else changed this image meanwhile; both statements are kept."));
      if (!answer.added) drop(answer.batch_id);
      if (answer.left) notice(leftOut(answer));
      if (answer.kept) notice(t("{n} decisions stay, because {names} decided again later.", { n: answer.kept, names: answer.by.join(", ") }));
      listener(entry, answer);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.status && ![401, 408, 429, 502, 503, 504, 507].includes(error.status)) {
        refuse(entry, error);
        continue;
      }
      notice(t("Not saved yet: {why} Trying again …", { why: error.message }), 0);
      await pause(wait);
      wait = Math.min(wait * 2, 8000);
    }
  }
}

/** Return the words for images of a selection that others have decided. */
export const leftOut = ({ left, by }) => t("{n} images stay as {names} decided.", { n: left, names: by.join(", ") });

/** Drop a batch without rows: there is nothing to take back, nor to repeat. */
function drop(id) {
  for (const name of [DONE, UNDONE]) write(name, read(name).filter(({ batch_id }) => batch_id !== id));
  write(QUEUE, read(QUEUE).filter(({ body }) => body.of !== id));
}

/** Drop an entry that would be refused again: a selection that changed, or what the person agrees to drop. */
function refuse(entry, { message, status }) {
  const isMine = entry.body.sender === who, hasChanged = entry.body.selection && status === 409;
  if (!hasChanged && !confirm(t("Not saved: {why} Drop this decision and go on?", { why: message }))) return (stopped = true);
  const rest = read(QUEUE).slice(1);
  write(QUEUE, isMine ? rest : rest.filter(({ body }) => body.sender === who)); // all of another person
  drop(entry.body.batch_id);
  notice(t("Not saved: {why}", { why: message }), 0);
  listener(entry, null);
}

addEventListener("beforeunload", (event) => {
  if (unsaved()) event.preventDefault();
});
