// The newest state of runs, publications and the index, by one stream a tab; closed while the tab is hidden.

import { root } from "./page.js";

const RETRY_MS = 15_000;

/** Call `changed(state)` with each state: {runs, published, index}. Of a run, also call `logged(part)` with parts of its log. */
export function follow(changed, run, logged) {
  let source = null;
  const update = () => {
    if (document.hidden) {
      source?.close();
      source = null;
    } else if (!source) {
      source = new EventSource(`${root}/v1/stream${run ? `?run=${encodeURIComponent(run)}` : ""}`);
      source.onmessage = (event) => changed(JSON.parse(event.data));
      source.onerror = () => {
        if (source?.readyState !== EventSource.CLOSED) return; // else refused: too many streams are open
        source = null;
        setTimeout(update, RETRY_MS);
      };
      source.addEventListener("log", (event) => logged(JSON.parse(event.data)));
    }
  };
  document.addEventListener("visibilitychange", update);
  update();
}
