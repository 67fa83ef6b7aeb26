// A run: curves over steps with its warnings, what its evaluation says, calibration, config and environment.

const CURVES = [ // title, the metrics drawn together
  ["Reward", /^reward\/mean$/],
  ["Reward components (mean)", /^reward\/[^/]+\/mean$/],
  ["Accuracy", /accuracy$/],
  ["Share of the variance within groups", /^reward\/.+\/advantage_share$/],
  ["KL and mismatch", /^(policy\/kl(?!_coefficient)|canary\/)/],
  ["Entropy", /^policy\/entropy$/],
  ["Completion length in tokens", /completion_tokens_mean$/],
  ["Groups without variance, dropped, cut, clipped", /^(reward\/(flat_group|dropped)|rollout\/(truncated|duplicate)|policy\/clip)_fraction$/],
  ["Failed scores", /^reward\/[^/]+\/(error|timeout)_fraction$/],
  ["Loss and gradient norm", /^(loss\/|learner\/grad_norm$)/],
  ["Loss on preferences", /^(train|held_out)\/loss$/],
  ["Margin", /^(train|held_out)\/margin$/],
  ["Scores of chosen and rejected", /^(train|held_out)\/(chosen|rejected)$/],
  ["Calibration error", /^held_out\/calibration_error$/],
  ["Gradient norm", /^train\/grad_norm$/],
  ["Learning rate", /learning_rate$/],
  ["Critic", /^critic\//],
  ["Seconds by stage", /^time\/(?!step)/],
  ["Tokens per second", /tokens_per_s$/],
];

const WARM_UP = [
  ["Loss in nats per token", /^sft\/(loss|validation_loss)$/],
  ["Perplexity on held-out rows", /^sft\/perplexity$/],
  ["Rewards of generated answers (mean)", /^sft\/answers\//],
  ["Gradient norm", /^sft\/grad_norm$/],
  ["Learning rate", /^sft\/learning_rate$/],
  ["Tokens per step", /^sft\/(trained_)?tokens$/],
];

const MOST_STEPS = 40; // of more, evenly spaced ones are shown

function training(head, rows) {
  const host = byId("training");
  outcomes(host, head);
  evaluations(host, head);
  stage(host, "Curves", head.runs, "series", CURVES);
  stage(host, "Warm-up (SFT)", head.runs, "warm_up", WARM_UP);
  calibration(host, head);
  timelines(host, head);
  extremes(host, rows);
}

function beforeAndAfter(head) { // [[metric, before, after]] of the run that is shown
  const metrics = Object.entries(head.runs[0]?.summary?.metrics ?? {});
  return metrics.filter(([, value]) => value && typeof value === "object" && "after" in value).map(([name, value]) => [name, value.before, value.after]);
}

function stepsOf(run) { return (run.series.step.at(-1) ?? run.warm_up.step.at(-1)) ?? 0; }

function outcomes(host, head) {
  const rows = beforeAndAfter(head).map(([name, before, after]) => [name, number(before), number(after)]);
  if (rows.length) section(host, "Before and after", element("div", { class: "tables" }, card("", table(["metric", "before", "after"], rows))));
}

function evaluations(host, head) {
  const datasets = [...new Set(head.evaluations.flatMap((one) => Object.keys(one.datasets)))];
  if (!datasets.length) return;
  section(host, "Evaluation", element("div", { class: "tables" }, datasets.map((dataset) => {
    const shownHere = head.evaluations.filter((one) => Object.hasOwn(one.datasets, dataset));
    const names = [...new Set(shownHere.flatMap((one) => one.datasets[dataset].map((measure) => measure.name)))];
    const lines = names.map((name) => [name, ...shownHere.map((one) => measured(one.datasets[dataset].find((measure) => measure.name === name)))]);
    const models = shownHere.map((one) => `${one.name}: ${one.model}`).join("; ");
    return card(dataset, table(["measure", ...shownHere.map((one) => one.name)], lines), element("p", { class: "muted" }, `value (95% interval) of each model. ${models}`));
  })));
}

function measured(measure) {
  if (!measure || measure.value === null) return "–";
  const text = (value) => (measure.is_share ? `${(100 * value).toFixed(1)}%` : number(value, 4));
  return measure.low === null ? text(measure.value) : `${text(measure.value)} (${text(measure.low)} to ${text(measure.high)})`;
}

function warningsOf(run) {
  return Object.entries(run.series).filter(([name]) => name.startsWith("warning/")).flatMap(([name, values]) => (
    values.flatMap((value, index) => (value ? [{ step: run.series.step[index], name: name.slice(8) }] : []))));
}

// "steps 2 to 7: truncation", the first one first; a step without the warning ends a span
function spansOf(warnings) {
  const found = [];
  for (const { step, name } of warnings) {
    const last = found.findLast((span) => span.name === name);
    if (last && step === last.to + 1) last.to = step;
    else found.push({ name, from: step, to: step });
  }
  found.sort((a, b) => a.from - b.from);
  return found.map(({ name, from, to }) => `${from === to ? `step ${from}` : `steps ${from} to ${to}`}: ${name}, see docs/monitors.md#${name}`);
}

function eventText({ step, event, rule, why, to_step: toStep }) {
  return `step ${step}: ${event}${toStep === undefined ? "" : ` to step ${toStep}`}, ${rule}: ${why}`;
}

// the curves of one stage of every run; charts: which metrics go together
function stage(host, title, runs, part, charts) {
  const used = runs.filter((run) => run[part].step.length).map((run) => ({ name: run.name, series: run[part] }));
  if (!used.length) return;
  const place = element("div", { class: "charts" });
  const main = part === "series" ? warningsOf(runs[0]) : [];
  const said = part === "series" ? [...runs[0].events.map(eventText), ...spansOf(main).slice(0, 30)] : [];
  section(host, title, place, said.map((text) => element("p", { class: "warning" }, text)));
  const drawnNames = new Set(["step"]);
  const known = [...new Set(used.flatMap((run) => Object.keys(run.series)))].filter((name) => !name.startsWith("warning/"));
  const add = (heading, names) => {
    const series = used.flatMap((run) => names.filter((name) => name in run.series).map((name) => ({
      name: used.length > 1 ? `${run.name} ${shortName(name)}` : shortName(name), steps: run.series.step, values: run.series[name],
    })));
    names.forEach((name) => drawnNames.add(name));
    if (series.length) addCurve(place, heading, series, main);
  };
  for (const [heading, pattern] of charts) add(heading, known.filter((name) => !drawnNames.has(name) && pattern.test(name)));
}

function shortName(name) { return name.replace(/^(reward|policy|time|sft|eval)\//, "").replace(/\/mean$/, ""); }

function calibration(host, head) {
  const runs = head.runs.filter((run) => run.calibration.length);
  if (!runs.length) return;
  section(host, "Calibration on held-out pairs", element("div", { class: "charts" }, runs.map((run) => card(run.name, reliabilityChart(run.calibration), element("p", { class: "muted" },
    `${number(run.calibration.reduce((sum, bin) => sum + bin.count, 0))} pairs: how often the better one has the higher score, by the probability the model gives to that. A point on the line is calibrated; larger points are more pairs.`)))));
}

// one row per step: the samples with the highest and the lowest reward, each a link to its row
function extremes(host, rows) {
  const found = new Map();
  const [reward, step] = [rows.reader("reward"), rows.reader("step")];
  for (let row = 0; reward && step && row < rows.size; row += 1) {
    if (reward(row) === null || step(row) === null) continue;
    const seen = found.get(step(row)) ?? { best: row, worst: row };
    if (reward(row) > reward(seen.best)) seen.best = row;
    if (reward(row) < reward(seen.worst)) seen.worst = row;
    found.set(step(row), seen);
  }
  const steps = [...found].sort((a, b) => a[0] - b[0]);
  if (!steps.length) return;
  const link = (row) => element("a", { href: state.link({ view: "rollouts", text: "", sort: "-reward", where: `step == ${step(row)}`, row: String(row) }) }, `${number(reward(row))} ${shown(rows.get("id", row))}`);
  const lines = spaced(steps, MOST_STEPS).map(([at, { best, worst }]) => [String(at), link(best), link(worst)]);
  section(host, "Best and worst of each step", element("div", { class: "tables" }, card("", table(["step", "best", "worst"], lines))));
}

function spaced(items, most) {
  if (items.length <= most) return items;
  return Array.from({ length: most }, (_, index) => items[Math.round((index * (items.length - 1)) / (most - 1))]);
}

function setup(head) {
  const files = head.runs.flatMap((run) => [[`${run.name}: config.yaml`, run.config], [`${run.name}: environment.json`, run.environment]]).filter(([, text]) => text);
  byId("setup").append(...files.map(([name, text]) => element("details", { open: true }, element("summary", {}, name), element("pre", { class: "plain" }, text))));
  return files.length > 0;
}
