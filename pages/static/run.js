// The page of a run: its progress and the end of its log, until shortly after its end. Nothing is requested while the tab is hidden.

import { json, notice, root } from "./page.js";

const EVERY_MS = 4000;
const MAX_CHARS = 200000;
const AFTER_END = 5; // the job writes its report after the run is recorded as ended
const [part, log] = [document.querySelector("[data-poll]"), document.getElementById("log")];
let [tag, next, job, left] = ["", null, "", AFTER_END];

async function progress() {
  const answer = await fetch(root + part.dataset.poll, { cache: "no-cache" });
  if (!answer.ok || answer.headers.get("etag") === tag) return;
  tag = answer.headers.get("etag");
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const hadFocus = part.contains(document.activeElement);
  part.replaceChildren(...page.body.childNodes);
  if (hadFocus) part.querySelector("button, a")?.focus();
}

async function lines() {
  const found = await json(log.dataset.log + (next === null ? "" : `?after=${next}`)).catch((error) => {
    if (error.status === 404) return null; // no log on this host
    throw error;
  });
  if (!found) return;
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  if (found.job !== job) log.textContent = "";
  log.textContent = (log.textContent + found.text).slice(-MAX_CHARS);
  [next, job] = [found.next, found.job];
  if (atEnd) log.scrollTop = log.scrollHeight;
}

async function look() {
  if (!document.hidden) {
    try {
      await Promise.all([progress(), lines()]);
    } catch (error) {
      notice(error.message);
    }
  }
  left = part.querySelector("[data-state]").dataset.state === "running" ? AFTER_END : left - 1;
  if (left > 0) setTimeout(look, EVERY_MS);
}

look();
