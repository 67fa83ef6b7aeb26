"use strict";
// One row per step: the samples with the highest and the lowest reward, each a link into the browser.

const MOST_STEPS = 40; // of more, evenly spaced ones are shown

function extremesOf(rollouts) {
  const found = new Map();
  rollouts.reward.forEach((reward, row) => {
    const step = rollouts.step[row];
    if (reward === null || step === null) return;
    const seen = found.get(step) || { best: row, worst: row };
    if (reward > rollouts.reward[seen.best]) seen.best = row;
    if (reward < rollouts.reward[seen.worst]) seen.worst = row;
    found.set(step, seen);
  });
  return [...found].sort((a, b) => a[0] - b[0]);
}

function spaced(items, most) {
  if (items.length <= most) return items;
  return Array.from({ length: most }, (_, index) => items[Math.round((index * (items.length - 1)) / (most - 1))]);
}

function extremes(data) {
  const steps = extremesOf(data.rollouts);
  if (!steps.length) return;
  const link = (row) => {
    const button = element("button", { type: "button" }, number(data.rollouts.reward[row]));
    button.addEventListener("click", () => {
      window.browser.show(row);
      document.getElementById("browser").scrollIntoView();
    });
    return button;
  };
  const text = (row) => shortened(`${data.rollouts.texts[data.rollouts.prompt[row]]} → ${data.rollouts.completion[row]}`.replace(/\s+/g, " "), 160);
  const rows = spaced(steps, MOST_STEPS).map(([step, { best, worst }]) => [String(step), link(best), text(best), link(worst), text(worst)]);
  document.querySelector("#extremes > div").append(card("", table(["step", "best", "", "worst", ""], rows)));
  show("extremes");
}
