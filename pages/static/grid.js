// The grid of images: a window of at most WINDOW cells over the list, moved by scrolling or by choosing a day.
// Pages come by cursors in both directions; a page that leaves the window is fetched again when it returns.

import { element, grouped, json, notice, pause, root, shape, STATUS, t } from "./page.js";
import { address, apply, filter, query, view } from "./address.js";
import { batchId, decide, leftOut, onSaved, save, undo, unsaved } from "./decisions.js";
import { bind } from "./keys.js";
import { askLabel, labelsInUse } from "./labels.js";

const WINDOW = 600, TYPED = 10_000, LATE_S = 2, CATCH_UP = 15, UNDATED = "0001-01-01";
const [grid, end, days] = ["grid", "end", "days"].map((id) => document.getElementById(id));
const eventId = grid.dataset.event; // of the page of one event, which has its images in the order of their times
const PAGE = eventId ? 500 : 100, [AFTER, BEFORE] = eventId ? ["before", "after"] : ["after", "before"]; // lists begin with the newest
if (eventId) filter.set("event_id", eventId);
const crops = address.has("crops") ? filter.get("label") : null;
let pages = []; // {cells, previous, next, version, from, wanted}, in the order of the list; `from` is the number of the first row, null if unknown
let loading = null, waiting = null; // the load that runs, and the one after it
const selection = { all: false, digests: new Set() }; // with `all`, `digests` are excluded
let counted = null, focused = null, anchor = null, deciding = null, follower = 0;

/** Return the boxes of a cell as an SVG over its picture; coordinates are fractions of the image. */
function outlines(boxes) {
  const rects = (boxes ?? []).map(({ x1, y1, x2, y2, is_human }) => shape("rect", { class: is_human ? "human" : "model", x: x1, y: y1, width: x2 - x1, height: y2 - y1 }));
  return shape("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" }, ...rects);
}

function cropOf(row, { x1, y1, x2, y2 }) {
  const [w, h] = [row.width_px, row.height_px];
  return `${root}/v1/images/${row.media_sha256}/crop?${new URLSearchParams({ x1: x1 * w, y1: y1 * h, x2: x2 * w, y2: y2 * h, w: 448 })}`;
}

function cellOf(row) {
  const best = row.top_label ? `${row.top_label} ${row.top_score === null ? "" : row.top_score.toFixed(2)}`.trim() : STATUS[row.status];
  const isStated = row.reviewed && (row.boxes ?? []).every((box) => box.is_human || box.label !== row.top_label);
  const more = row.n_boxes > 1 ? ` +${row.n_boxes - 1}` : "";
  const time = (row.captured_at_corrected ?? "").slice(0, 16).replace("T", " ");
  const alt = [best + more, row.reviewed ? t("reviewed") : "", row.flagged ? t("flagged") : "", row.camera_id, time].filter(Boolean).join(", ");
  const crop = crops && row.boxes.find((box) => box.label === crops);
  const thumbnail = (w) => `${root}/v1/images/${row.media_sha256}/thumbnail?w=${w}`;
  const sources = crop ? { src: cropOf(row, crop) } : { sizes: "16rem", srcset: `${thumbnail(320)} 320w, ${thumbnail(640)} 640w`, src: thumbnail(320) };
  const image = element("img", { loading: "lazy", decoding: "async", width: 320, height: 240, alt, ...sources });
  const frame = element("span", { className: "frame" }, image); // has the shape of the image, so that boxes fit
  if (!crop && row.width_px && row.height_px) {
    frame.style.setProperty("aspect-ratio", `${row.width_px} / ${row.height_px}`);
    frame.classList.toggle("tall", row.width_px / row.height_px < 4 / 3);
    frame.append(outlines(row.boxes));
  }
  const picture = element("span", { className: "picture" }, frame);
  image.addEventListener("error", () => picture.classList.add("unreadable"));
  const what = element("span", { className: "what" }, (row.flagged ? "⚑ " : "") + (isStated ? "✓ " : "") + best + more + (row.reviewed && !isStated ? `, ${t("reviewed")}` : ""));
  const when = element("span", { className: "when quiet" }, [row.camera_id, time].filter(Boolean).join(" · "));
  const link = element("a", { href: `${root}/images/${row.media_sha256}?${query()}`, tabIndex: -1 }, picture, what, when);
  const tick = element("input", { type: "checkbox", tabIndex: -1, checked: isSelected(row.media_sha256), "aria-label": t("Select {what}", { what: alt }) });
  tick.addEventListener("click", (event) => select(cell, event.shiftKey, tick.checked));
  const cell = element("div", { role: "row", className: `cell ${row.status}${row.reviewed ? " reviewed" : ""}`, "data-digest": row.media_sha256 },
    element("span", { role: "gridcell" }, link), element("span", { role: "gridcell" }, tick));
  return cell;
}

async function fetchPage(more) {
  const { columns, index_version: version, ...ends } = await json(`/v1/images?${query({ limit: PAGE, ...more })}`);
  const names = Object.keys(columns), [previous, next] = eventId ? [ends.next, ends.previous] : [ends.previous, ends.next];
  const rows = columns.media_sha256.map((_, i) => Object.fromEntries(names.map((name) => [name, columns[name][i]])));
  return { cells: (eventId ? rows.reverse() : rows).map(cellOf), previous, next, version, wanted: more, isDated: !!columns.captured_at_corrected[0] };
}

/** Set the number of the first row of a page, which screen readers announce. */
function number(page, from) {
  page.from = from;
  if (from !== null) page.cells.forEach((cell, i) => cell.setAttribute("aria-rowindex", from + i));
}

async function once(work) {
  if (loading) return;
  loading = work().then(() => true, fail);
  const isDone = await loading;
  loading = null;
  const next = waiting;
  waiting = null;
  if (next) return next();
  end.textContent = !pages.length || pages.at(-1).next ? "" : held() ? t("End of the list") : t("No image matches.");
  if (isDone && nearEnd() && pages.at(-1)?.next) extend(); // after an error, the next scrolling tries again
}

function nearEnd() {
  return end.getBoundingClientRect().top < innerHeight * 2;
}

const held = () => pages.reduce((sum, page) => sum + page.cells.length, 0);

const extend = () => once(async () => {
  const last = pages.at(-1), page = await fetchPage({ [AFTER]: last.next });
  number(page, last.from && last.from + last.cells.length);
  pages.push(page);
  grid.append(...page.cells);
  while (held() > WINDOW) {
    const from = grid.scrollHeight;
    for (const cell of pages.shift().cells) cell.remove();
    scrollBy(0, grid.scrollHeight - from);
  }
});

const extendUp = () => once(async () => {
  const page = await fetchPage({ [BEFORE]: pages[0].previous });
  if (!page.cells.length) return void (pages[0].previous = "");
  const from = grid.scrollHeight;
  number(page, pages[0].from && pages[0].from - page.cells.length);
  pages.unshift(page);
  grid.prepend(...page.cells);
  scrollBy(0, grid.scrollHeight - from);
  while (held() > WINDOW) for (const cell of pages.pop().cells) cell.remove();
});

/** Replace the window by the page that starts at a date, or by the newest; of several that wait, the last is shown. */
const show = (at) => loading ? (waiting = () => show(at)) : once(async () => {
  let page = await fetchPage(at ? { at } : eventId ? { at: UNDATED } : {});
  if (at === UNDATED && page.isDated) page = await fetchPage({ after: page.next }); // after the oldest with a time
  number(page, at ? null : 1);
  pages = [page];
  grid.replaceChildren(...page.cells);
  scrollTo(0, 0);
  focused = null;
  if (page.cells[0]) focus(page.cells[0], false);
  const url = new URL(location.href);
  at ? url.searchParams.set("at", at) : url.searchParams.delete("at");
  history.replaceState(null, "", url);
});

/** Fetch the pages of the window again, in place: decisions have changed them. */
const renew = () => loading ? (waiting ??= renew) : pages.length && once(async () => {
  const fresh = [await fetchPage(pages[0].wanted)];
  if (!fresh[0].cells.length) return void (waiting ??= () => show()); // all of it is decided; images before or after it may match
  while (fresh.length < pages.length && fresh.at(-1).next) fresh.push(await fetchPage({ [AFTER]: fresh.at(-1).next }));
  let from = pages[0].from;
  for (const page of fresh) {
    number(page, from);
    from = from && from + page.cells.length;
  }
  const active = document.activeElement, at = active.closest("#grid .cell"), [here, start] = [at ?? focused, anchor].map((cell) => cell?.dataset.digest);
  pages = fresh;
  grid.replaceChildren(...pages.flatMap((page) => page.cells));
  const cells = [...grid.children], found = (digest) => cells.find((cell) => cell.dataset.digest === digest), kept = found(here), next = kept ?? cells[0];
  focused = null;
  anchor = found(start) ?? null;
  if (next) focus(next, at && !kept);
  if (at && kept) kept.querySelector(active.localName).focus({ preventScroll: true }); // the page does not jump while a person selects
});

addEventListener("scroll", () => {
  if (nearEnd() && pages.at(-1)?.next) extend();
  else if (scrollY < innerHeight && pages[0]?.previous) extendUp();
}, { passive: true });

// selection: digests, or everything that matches without some

const isSelected = (digest) => selection.all !== selection.digests.has(digest);
const selectedCount = () => (selection.all ? (counted?.count ?? 0) - selection.digests.size : selection.digests.size);

function mark(cell, on) {
  const digest = cell.dataset.digest;
  on === selection.all ? selection.digests.delete(digest) : selection.digests.add(digest);
  cell.querySelector("input").checked = on;
}

function select(cell, isRange, on) {
  const cells = [...grid.children];
  const from = isRange && anchor ? cells.indexOf(anchor) : -1, to = cells.indexOf(cell);
  for (const each of from < 0 ? [cell] : cells.slice(Math.min(from, to), Math.max(from, to) + 1)) mark(each, on);
  anchor = cell;
  showSelection();
}

function showSelection() {
  const n = selectedCount();
  document.getElementById("bulk").hidden = !n;
  document.getElementById("selected").textContent = t("{n} selected", { n });
}

/** Select everything that matches, or nothing. */
function selectAll(on = true) {
  selection.all = on;
  selection.digests.clear();
  for (const cell of grid.children) cell.querySelector("input").checked = on;
  showSelection();
}

async function bulk(action) {
  if (action === "none") return selectAll(false);
  if (selection.all && apply()) return;
  const label = action === "relabel" ? await askLabel(await labelsInUse(view)) : undefined;
  if (action === "relabel" && !label) return;
  const count = selectedCount(), replaces = filter.get("reviewed") === "true";
  const chosen = selection.all
    ? { filter: Object.fromEntries(filter), excluded: [...selection.digests] }
    : { digests: [...selection.digests], ...view };
  const of_label = action === "relabel" ? (filter.get("label") ?? undefined) : undefined; // other boxes stay as they are
  const decision = { ...chosen, index_version: counted?.index_version, count, action, label, of_label, replaces };
  if ((!eventId || action === "relabel") && !(await isConfirmed(decision))) return;
  const typed = count > TYPED ? prompt(t("Type the number of images, {n}, to go on:", { n: String(count) })) : null;
  if (count > TYPED && Number(typed) !== count) return;
  decide({ selection: { ...decision, ...(count > TYPED ? { confirmed_count: count } : {}) } }, []);
  selectAll(false);
}

/** Show a question, with the number of images and what others have decided in them. */
async function isConfirmed(decision) {
  const { count, action, label, of_label, replaces } = decision;
  const { decided, by } = await json("/v1/assertions", { method: "POST", body: { batch_id: batchId(), dry_run: true, selection: decision } });
  const words = { keep: t("Confirm every detection"), suppress: t("Mark as empty"), relabel: of_label ? t("Relabel every {of} as {label}", { of: of_label, label }) : t("Relabel every detection as {label}", { label }) }[action];
  const others = { n: decided, names: by.join(", ") };
  const about = replaces ? t("{names} decided {n} of them: this replaces it.", others) : t("{names} decided {n} of them: these stay as they are.", others);
  return confirm([t("{what} in {n} images?", { what: words, n: count }), decided ? about : ""].filter(Boolean).join("\n"));
}

const fail = (error) => notice(error.message, 0);

onSaved((entry, answer) => {
  if (!entry) return;
  const chosen = entry.body.selection;
  if (answer && chosen) notice([answer.added ? t("Saved for {n} images. Ctrl+Z takes it back.", { n: chosen.count - answer.left }) : t("Nothing was recorded: no detection is left to decide."), answer.left ? leftOut(answer) : ""].join(" ").trim(), 0);
  else if (answer && entry.body.of && !answer.kept) notice(t("Taken back."));
  catchUp().catch(fail);
});

/** Wait until the list has what was saved or published; then show it, and count it for the next selection. A newer call replaces this one. */
async function catchUp() {
  const mine = ++follower;
  for (let tries = 1; ; tries++) {
    await drawCount();
    if (mine !== follower) return;
    if (counted.index_version !== pages[0]?.version) await renew();
    if (!counted.behind_s) break;
    await pause(Math.min(tries, CATCH_UP) * 1000);
    if (mine !== follower) return;
  }
  if (!eventId) await drawDays();
}

document.getElementById("bulk").addEventListener("click", (event) => {
  if (event.target.dataset.bulk) deciding ??= bulk(event.target.dataset.bulk).catch(fail).finally(() => (deciding = null)); // a double click decides once
});
document.getElementById("all").addEventListener("click", () => apply() || selectAll());

// keys: arrows move, Enter opens, Space selects

function columnsPerRow() {
  const cells = [...grid.children];
  const below = cells.findIndex((cell) => cell.offsetTop > cells[0].offsetTop);
  return below < 0 ? cells.length : below;
}

/** Make a cell the one that Tab reaches. */
function focus(cell, now) {
  if (focused) focused.querySelector("a").tabIndex = -1;
  focused = cell;
  const link = cell.querySelector("a");
  link.tabIndex = 0;
  if (now) link.focus({ preventScroll: true });
  if (now) cell.scrollIntoView({ block: "nearest" });
}

grid.addEventListener("keydown", (event) => {
  const cell = event.target.closest(".cell");
  if (!cell) return;
  const cells = [...grid.children], at = cells.indexOf(cell);
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columnsPerRow(), ArrowDown: columnsPerRow() }[event.key];
  if (step !== undefined) {
    const to = cells[at + step];
    if (!to) return;
    event.preventDefault();
    focus(to, true);
    if (!event.shiftKey) return;
    const isBack = isSelected(cell.dataset.digest) && isSelected(to.dataset.digest);
    anchor = cell;
    select(to, true, !isBack);
    if (isBack) select(to, false, true);
  } else if (event.key === " ") {
    event.preventDefault();
    select(cell, event.shiftKey, !isSelected(cell.dataset.digest));
  }
});

/** Decide the whole event once: not while a key is held, nor before the last decision is saved. */
const whole = (action) => (event) => counted && !event.repeat && !unsaved() && (selectAll(), bulk(action).catch(fail));
bind({ "Ctrl+z": () => undo() ?? notice(t("Nothing to take back.")), ...(eventId ? { Enter: whole("keep"), "0": whole("suppress"), l: whole("relabel") } : {}) }, {
  "← → ↑ ↓": t("another picture"), Enter: eventId ? t("open the picture; outside of the grid, confirm the whole event") : t("open the picture"),
  Space: t("select; with Shift up to here"), "Shift ← →": t("extend the selection"), "Ctrl+Z": t("undo"), ...(eventId ? { "0": t("the whole event is empty"), L: t("one label for the whole event") } : {}),
});

// days: months, each of which goes to its newest picture and opens to its days; drawn from the histogram

/** Show a date of the list, or of the list of the changed boxes. */
const goTo = (at) => apply({ at }) || show(at);

async function drawDays() {
  const bars = await json(`/v1/images/histogram?${query({ by: "day" })}`);
  const undated = bars[0]?.value ? null : bars.shift(), months = new Map(), opened = days.querySelector("[open]")?.dataset.month;
  for (const bar of bars.reverse()) months.set(bar.value.slice(0, 7), [...(months.get(bar.value.slice(0, 7)) ?? []), bar]);
  const button = (words, images, at) => element("button", { className: "day", onclick: () => goTo(at) }, `${words} · ${grouped(images)}`);
  const endOf = (day) => `${day.value}T23:59:59.999999`;
  if (days.contains(document.activeElement)) return; // it would lose the focus
  days.replaceChildren();
  for (const [month, bars] of months) {
    const n = bars.reduce((sum, day) => sum + day.images, 0), title = element("summary", {}, `${month} · ${grouped(n)}`);
    title.addEventListener("click", () => title.parentElement.open || goTo(endOf(bars[0]))); // this click opens it, and closes the others
    days.append(element("details", { name: "month", open: month === opened, "data-month": month }, title, ...bars.map((day) => button(day.value, day.images, endOf(day)))));
  }
  if (undated) days.append(button(t("without a time"), undated.images, UNDATED));
  if (months.size === 1) days.firstChild.open = true;
}

async function drawCount() {
  counted = await json(`/v1/images/count?${query()}`);
  grid.setAttribute("aria-rowcount", counted.count);
  const late = counted.behind_s > LATE_S ? t("the list is {n} s behind", { n: Math.round(counted.behind_s) }) : "";
  showSelection();
  document.getElementById("all").hidden = !counted.count;
  document.getElementById("count").textContent = [counted.count === 1 ? t("1 image") : t("{n} images", { n: counted.count }), late].filter(Boolean).join(" — ");
}

save();
show(address.get("at"));
drawCount().then(() => {
  if (eventId) selectAll();
  if (counted.behind_s) return catchUp();
}).catch(fail);
if (!eventId) drawDays().catch(fail);
