// The newest state of runs and publications, by one stream a tab; closed while the tab is hidden.

import { root } from "./page.js";

/** Call `changed(state)` with each state: {runs, published}. */
export function follow(changed) {
  let source = null;
  const update = () => {
    if (document.hidden) {
      source?.close();
      source = null;
    } else if (!source) {
      source = new EventSource(`${root}/v1/stream`);
      source.onmessage = (event) => changed(JSON.parse(event.data));
    }
  };
  document.addEventListener("visibilitychange", update);
  update();
}
