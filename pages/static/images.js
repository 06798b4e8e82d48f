// What is read of images for the viewer: details, neighbours in the list, and the next pictures, so that a key need not wait.

import { json, root } from "./page.js";
import { address, query, view } from "./address.js";

const AHEAD = 3, WIDTH = 1600;
const shown = address.get("shown");
export const other = address.get("run"); // runs: of the boxes, and of a second set that is compared
export const details = new Map(); // promises, by digest
const neighbours = new Map(), ahead = new Map(); // pictures that are kept, so that they stay decoded

export const pictureOf = (digest) => `${root}/v1/images/${digest}/thumbnail?w=${WIDTH}`;

function remembered(map, digest, path) {
  if (!map.has(digest)) map.set(digest, json(path).catch((error) => (map.delete(digest), Promise.reject(error))));
  return map.get(digest);
}

/** Read these images again when they are shown; those of a selection in the grid, which are not named, are among all. */
export const forget = (media) => media.length ? media.forEach((digest) => details.delete(digest)) : details.clear();
export const detailOf = (digest) => remembered(details, digest, `/v1/images/${digest}?${new URLSearchParams(shown ? { run: shown } : view)}`);
export const secondOf = async (digest) => (other ? (await json(`/v1/images/${digest}?${new URLSearchParams({ run: other })}`)).boxes.filter((box) => box.is_shown) : []);

/** Return the {previous, next} image of the list. */
export const listed = (digest) => remembered(neighbours, digest, `/v1/images/${digest}/neighbours?${query()}`);

/** Return the first image of the list with a filter more, or null. */
export async function firstOf(more) {
  const { columns } = await json(`/v1/images?${query({ limit: 1, ...more })}`);
  return columns.media_sha256[0] ?? null;
}

/** Read the images after this one, and decode their pictures; `besides(digest)` are its neighbours. */
export async function lookAhead(digest, besides) {
  for (let left = AHEAD; left && digest; left--) {
    digest = (await besides(digest)).next;
    if (!digest) return;
    detailOf(digest).catch(() => {});
    if (ahead.has(digest)) continue;
    const next = Object.assign(new Image(), { src: pictureOf(digest) });
    ahead.set(digest, next);
    next.decode().catch(() => ahead.delete(digest));
    if (ahead.size > 2 * AHEAD) ahead.delete(ahead.keys().next().value);
  }
}
