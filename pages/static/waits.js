// The page of a list while its index is being built: the step, and the list itself once there is an index.

import { t } from "./page.js";
import { follow } from "./stream.js";

const [step, detail] = [document.getElementById("step"), document.querySelector(".detail")];

follow(({ index }) => {
  if (!index) return location.reload();
  [step.value, step.max] = index;
  detail.textContent = t("Step {done} of {all}", { done: index[0], all: index[1] });
});
