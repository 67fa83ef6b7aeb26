"use strict";
// Lay the sections out in the order of the page; a section without data stays hidden.

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

function overview(data) {
  const summary = data.summary;
  const facts = [
    ["rollouts", number(summary.num_rows)],
    ["groups", number(summary.num_groups)],
    ["groups without variance", percent(summary.num_flat, summary.num_groups)],
    ["dropped", number(summary.num_dropped)],
  ];
  const host = document.getElementById("overview");
  if (summary.num_rows) host.append(element("div", { class: "cards" }, ...facts.map(([name, value]) => element("div", { class: "card" }, element("b", {}, value), name))));
  if (summary.num_shown < summary.num_rows) {
    host.append(element("p", { class: "muted" }, `The browser holds ${number(summary.num_shown)} of them, in whole groups chosen at random; everything else counts all.`));
  }
  const first = data.runs[0];
  if (first && first.summary) {
    const rows = Object.entries(first.summary.metrics || {}).filter(([, value]) => value && typeof value === "object" && "after" in value);
    if (rows.length) host.append(card("Before and after", table(["metric", "before", "after"], rows.map(([name, v]) => [name, number(v.before), number(v.after)]))));
  }
}

function evaluations(data) {
  const datasets = [...new Set(data.evaluations.flatMap((one) => Object.keys(one.datasets)))];
  if (!datasets.length) return;
  const host = show("evaluations");
  for (const dataset of datasets) {
    const shown = data.evaluations.filter((one) => dataset in one.datasets);
    const names = [...new Set(shown.flatMap((one) => one.datasets[dataset].map((measure) => measure.name)))];
    const rows = names.map((name) => [name, ...shown.map((one) => measured(one.datasets[dataset].find((measure) => measure.name === name)))]);
    const models = shown.map((one) => `${one.name}: ${one.model}`).join("; ");
    host.append(card(dataset, table(["measure", ...shown.map((one) => one.name)], rows), element("p", { class: "muted" }, `value (95% interval) of each model. ${models}`)));
  }
}

function measured(measure) {
  if (!measure || measure.value === null) return "–";
  const text = (value) => (measure.is_share ? `${(100 * value).toFixed(1)}%` : number(value, 4));
  return measure.low === null ? text(measure.value) : `${text(measure.value)} (${text(measure.low)} to ${text(measure.high)})`;
}

function warningsOf(run) {
  const found = [];
  for (const [name, values] of Object.entries(run.series)) {
    if (!name.startsWith("warning/")) continue;
    values.forEach((value, index) => { if (value) found.push({ step: run.series.step[index], name: name.slice(8) }); });
  }
  return found;
}

// "steps 2 to 7: truncation", the first one first; a step without the warning ends a span
function spans(warnings) {
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

// shown: [{ name, series }] of one stage; charts: which metrics go together
function stageCurves(host, shown, charts, warnings) {
  const used = new Set(["step"]);
  const known = [...new Set(shown.flatMap((run) => Object.keys(run.series)))].filter((name) => !name.startsWith("warning/"));
  for (const [title, pattern] of charts) {
    const names = known.filter((name) => !used.has(name) && pattern.test(name));
    const series = shown.flatMap((run) => names.filter((name) => name in run.series).map((name) => ({
      name: shown.length > 1 ? `${run.name}: ${short(name)}` : short(name), steps: run.series.step, values: run.series[name],
    })));
    names.forEach((name) => used.add(name));
    if (series.length) addCurve(host, title, series.slice(0, 12), warnings);
  }
}

function warmUp(data) {
  const runs = data.runs.filter((run) => run.warm_up.step.length).map((run) => ({ name: run.name, series: run.warm_up }));
  if (runs.length) stageCurves(show("warm-up"), runs, WARM_UP, []);
}

function calibration(data) {
  for (const run of data.runs.filter((one) => one.calibration.length)) {
    const pairs = run.calibration.reduce((sum, bin) => sum + bin.count, 0);
    show("calibration").append(card(run.name, reliabilityChart(run.calibration), element("p", { class: "muted" },
      `${number(pairs)} pairs: how often the better one has the higher score, by the probability the model gives to that. A point on the line is calibrated; larger points are more pairs.`)));
  }
}

function curves(data) {
  const runs = data.runs.filter((run) => run.series.step.length);
  if (!runs.length) return;
  const host = show("curves");
  const warnings = warningsOf(runs[0]);
  stageCurves(host, runs, CURVES, warnings);
  const said = [...runs[0].events.map(eventText), ...spans(warnings).slice(0, 30)];
  for (const text of said) host.parentElement.append(element("p", { class: "warning" }, text));
}

function short(name) {
  return name.replace(/^(reward|policy|time|sft|eval)\//, "").replace(/\/mean$/, "");
}

function distributions(data) {
  const entries = Object.entries(data.histograms);
  if (!entries.length) return;
  const host = show("distributions");
  for (const [name, histogram] of entries) {
    const outcomes = Object.entries(data.outcomes[name] || {}).map(([outcome, count]) => `${number(count)} ${outcome}`).join(", ");
    host.append(card(name, barChart(histogram.bars), outcomes ? element("p", { class: "muted" }, outcomes) : null));
  }
}

function agreement(data) {
  const entries = Object.entries(data.confusion);
  if (!entries.length) return;
  const host = show("agreement");
  for (const [name, c] of entries) {
    host.append(card(name, table(["", "label: correct", "label: wrong"], [
      ["accepted", number(c.true_positive), number(c.false_positive)],
      ["rejected", number(c.false_negative), number(c.true_negative)],
    ]), element("p", { class: "muted" }, `precision ${number(c.precision)}, recall ${number(c.recall)}`)));
  }
}

function relations(data) {
  const names = [...new Set(data.correlations.flatMap((pair) => [pair.a, pair.b]))].sort();
  if (names.length < 2) return;
  const known = new Map(data.correlations.flatMap((pair) => [[`${pair.a} ${pair.b}`, pair.r], [`${pair.b} ${pair.a}`, pair.r]]));
  const rows = names.map((a) => [a, ...names.map((b) => {
    const r = a === b ? 1 : known.get(`${a} ${b}`);
    const cell = element("span", {}, r === null || r === undefined ? "–" : r.toFixed(2));
    if (r) cell.style.color = r > 0 ? "var(--good)" : "var(--bad)";
    if (r) cell.style.fontWeight = Math.abs(r) > 0.5 ? "700" : "400";
    return cell;
  })]);
  show("relations").append(card("", table(["", ...names], rows)));
}

function slowest(data) {
  if (!data.slowest.length || data.slowest[0][0] === 0) return;
  const rows = data.slowest.map(([seconds, name, id]) => [id, name, `${number(seconds * 1000, 3)} ms`]);
  show("slowest").append(card("", table(["row", "component", "time"], rows)));
}

function changes(data) {
  if (!data.diff) return;
  const host = show("changes");
  const parts = [...Object.values(data.diff.components), data.diff.reward];
  host.append(card("", table(["component", "changed", "0 to 1", "1 to 0", "largest change"],
    parts.map((p) => [p.name, number(p.num_changed), p.is_verdict ? number(p.flips_up) : "–", p.is_verdict ? number(p.flips_down) : "–", number(p.max_abs_delta)]))));
  const words = (name) => name.replaceAll("_", " ");
  host.append(card("What GRPO would see", table(["", ""], Object.entries(data.diff.grpo).map(([name, value]) => [words(name), number(value)]))));
}

function setup(data) {
  const files = data.runs.flatMap((run) => [[`${run.name}: config.yaml`, run.config], [`${run.name}: environment.json`, run.environment]]).filter(([, text]) => text);
  if (!files.length) return;
  const host = document.querySelector("#setup > div");
  show("setup");
  for (const [name, text] of files) host.append(element("details", {}, element("summary", {}, name), element("pre", {}, text)));
}

function navigation() {
  const nav = document.getElementById("nav");
  for (const section of document.querySelectorAll("main section:not([hidden])")) {
    const heading = section.querySelector("h2");
    if (heading) nav.append(element("a", { href: `#${section.id}` }, heading.textContent));
  }
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  redrawCurves();
}

function themes() {
  const wish = window.matchMedia("(prefers-color-scheme: dark)");
  setTheme(wish.matches ? "dark" : "light");
  wish.addEventListener("change", () => setTheme(wish.matches ? "dark" : "light"));
  document.getElementById("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  let pending = 0;
  window.addEventListener("resize", () => { clearTimeout(pending); pending = setTimeout(redrawCurves, 150); });
}

async function main() {
  themes();
  const data = await readPayload();
  document.getElementById("title").textContent = data.title;
  document.getElementById("source").textContent = data.source === data.title ? "" : data.source;
  for (const section of [overview, evaluations, warmUp, curves, calibration, timeline, distributions, agreement, relations, slowest, changes, extremes, setup]) section(data);
  if (data.rollouts.id.length) {
    document.getElementById("browser").hidden = false;
    window.browser = new Browser(data.rollouts);
  }
  navigation();
  document.getElementById("loading").remove();
  document.body.dataset.ready = "yes";
}

main().catch((error) => {
  document.getElementById("loading").textContent = `The report cannot be shown: ${error.message}. It needs a browser from 2023 or newer.`;
  throw error;
});
