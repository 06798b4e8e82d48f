// The page of a run: its progress is loaded again when the event stream reports a change, which also brings its log.

import { notice } from "./page.js";
import { follow } from "./stream.js";

const MAX_CHARS = 200000;
const [part, log] = [document.getElementById("progress"), document.getElementById("log")];
let known = "";

async function changed({ runs = [], problem }) {
  const now = JSON.stringify(runs.find((run) => run.run_id === part.dataset.run));
  if (problem || now === known) return problem && notice(problem);
  const answer = await fetch(location.href).catch(() => null);
  if (!answer?.ok) return;
  known = now;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const hadFocus = part.contains(document.activeElement);
  part.replaceChildren(...page.getElementById("progress").childNodes);
  if (hadFocus) part.querySelector("button, a")?.focus();
}

function logged({ text, is_first }) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.textContent = ((is_first ? "" : log.textContent) + text).slice(-MAX_CHARS);
  if (atEnd) log.scrollTop = log.scrollHeight;
}

follow(changed, part.dataset.run, logged);
