// The page of a run: its progress is loaded again when the event stream reports a change, which also brings its log.

import { notice } from "./page.js";
import { follow } from "./stream.js";

const MAX_CHARS = 200000;
const [part, log] = [document.getElementById("progress"), document.getElementById("log")];
let known = "", newest = "";

async function changed({ runs = [], problem }) {
  const now = JSON.stringify(runs.find((run) => run.run_id === part.dataset.run));
  if (problem || now === known) return problem && notice(problem);
  newest = now;
  const text = await fetch(location.href).then((answer) => answer.ok && answer.text()).catch(() => "");
  if (!text || now !== newest) return; // a newer state is loaded
  known = now;
  const page = new DOMParser().parseFromString(text, "text/html");
  const hadFocus = part.contains(document.activeElement);
  part.replaceChildren(...page.getElementById("progress").childNodes);
  if (hadFocus) part.querySelector("button, a")?.focus();
}

/** Return an event of the log, which is JSON, as its time, its name and its plain values; other lines as they are. */
function plain(line) {
  try {
    const { timestamp, at, event, level, run_id, ...rest } = JSON.parse(line), time = timestamp ?? new Date(at * 1000).toISOString();
    const values = Object.entries(rest).filter(([, value]) => typeof value !== "object").map(([name, value]) => `${name}: ${value}`);
    return [time.slice(0, 19).replace("T", " "), level === "info" ? "" : level, event, values.join(", ")].filter(Boolean).join(" ");
  } catch {
    return line;
  }
}

function logged({ text, is_first }) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.textContent = ((is_first ? "" : log.textContent) + text.split("\n").map(plain).join("\n")).slice(-MAX_CHARS);
  if (atEnd) log.scrollTop = log.scrollHeight;
}

follow(changed, part.dataset.run, logged);
