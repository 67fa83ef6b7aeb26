// What a column holds, among some rows; every bar and every value is a link to its rows.

const EXACT_VALUES = 24; // up to this many distinct numbers get a bar each
const NUM_BINS = 30;
const MAX_LEVELS = 12;

function histogram(values) { // [[low, high, count]], low = high for a single value
  const counts = new Map();
  for (const value of values) {
    counts.set(value, (counts.get(value) || 0) + 1);
    if (counts.size > EXACT_VALUES) return binned(values);
  }
  return [...counts].sort((a, b) => a[0] - b[0]).map(([value, count]) => [value, value, count]);
}

function binned(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
  const width = (high - low) / NUM_BINS;
  const counts = new Array(NUM_BINS).fill(0);
  for (const value of values) counts[Math.min(Math.floor((value - low) / width), NUM_BINS - 1)] += 1;
  return counts.map((count, index) => [low + index * width, index === NUM_BINS - 1 ? high : low + (index + 1) * width, count]);
}

function valuesOf(rows, name, among) {
  const read = rows.reader(name);
  return among.map(read).filter((value) => value !== null);
}

function facetNode(rows, name, among, { add = false, small = false } = {}) {
  const kind = rows.kind(name);
  if (kind === "long") return element("p", { class: "muted" }, "texts: filter with ", element("code", {}, `${nameText(name)} contains "…"`));
  const values = valuesOf(rows, name, among);
  if (!values.length) return element("p", { class: "muted" }, "no values");
  const missing = among.length - values.length;
  const rest = missing && !small ? element("p", { class: "muted" }, rowsLink(`${nameText(name)} == null`, `${number(missing)} without a value`, { add })) : null;
  if (kind === "number") {
    const bars = histogram(values);
    return element("div", {}, barChart(bars, (low, high) => {
      const where = within(name, low, high, high === bars.at(-1)[1]);
      return state.link({ view: "rollouts", row: "", pane: "row", ...(add ? { where: both(state.current.where, where) } : { where, text: "" }) });
    }, small), rest);
  }
  return element("div", {}, levelsNode(name, values, add), rest);
}

function levelsNode(name, values, add) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) || 0) + 1);
  const most = [...counts].sort((a, b) => b[1] - a[1]);
  const lines = most.slice(0, MAX_LEVELS).map(([value, count]) => {
    const bar = element("span", { class: "level" });
    bar.style.setProperty("--share", `${(100 * count) / most[0][1]}%`);
    return element("li", {}, bar, rowsLink(equals(name, value), shortened(oneLine(String(value)), 60), { add }), element("span", { class: "muted" }, number(count)));
  });
  return element("div", {}, element("ul", { class: "levels" }, lines), most.length > MAX_LEVELS ? element("p", { class: "muted" }, `and ${number(most.length - MAX_LEVELS)} more values`) : null);
}

// bars: [low, high, count]; link: (low, high) -> address
function barChart(bars, link, small = false) {
  const [width, height] = small ? [170, 34] : [330, 130];
  const base = small ? height - 1 : height - 22;
  const chart = svg("svg", { class: small ? "bars small" : "bars", viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "distribution", preserveAspectRatio: small ? "xMinYMid" : "xMidYMid" });
  const most = Math.max(...bars.map((bar) => bar[2]), 1);
  const slot = width / bars.length;
  bars.forEach(([low, high, count], index) => {
    if (!count) return;
    const size = Math.max((count / most) * (base - (small ? 2 : 16)), 1.5);
    const thick = Math.min(Math.max(slot * 0.85, 1), 56);
    const said = `${low === high ? number(low) : `${number(low)} to ${number(high)}`}: ${plural(count, "row")}`;
    const bar = svg("rect", { x: (index + 0.5) * slot - thick / 2, y: base - size, width: thick, height: size });
    const reach = svg("rect", { class: "reach", x: index * slot, y: 0, width: slot, height: base });
    chart.append(svg("a", { href: link(low, high), "aria-label": said }, svg("title", {}, said), reach, bar));
  });
  chart.append(svg("line", { x1: 0, x2: width, y1: base, y2: base }));
  if (small) return chart;
  const every = Math.max(1, Math.ceil(bars.length / 7));
  bars.forEach(([low], index) => {
    if (index % every === 0) chart.append(svg("text", { x: (index + 0.5) * slot, y: base + 15, "text-anchor": "middle" }, number(low, 3)));
  });
  chart.append(svg("text", { x: 0, y: 10 }, `most: ${number(most)}`));
  return chart;
}

// Pearson's correlation over the rows that have both; null for a constant
function correlation(rows, first, second) {
  const [a, b] = [rows.reader(first), rows.reader(second)];
  let [count, meanA, meanB, aa, bb, ab] = [0, 0, 0, 0, 0, 0];
  for (let row = 0; row < rows.size; row += 1) {
    const [x, y] = [a(row), b(row)];
    if (x === null || y === null) continue;
    count += 1;
    const [dx, dy] = [x - meanA, y - meanB];
    meanA += dx / count;
    meanB += dy / count;
    aa += dx * (x - meanA);
    bb += dy * (y - meanB);
    ab += dx * (y - meanB);
  }
  const constant = (spread, mean) => spread <= 1e-12 * Math.max(1, mean * mean) * count;
  return { r: !count || constant(aa, meanA) || constant(bb, meanB) ? null : ab / Math.sqrt(aa * bb), meanA, meanB, count };
}

class ColumnsPanel {
  constructor(host, rows) {
    Object.assign(this, { host, rows });
    this.opened = new Set();
    this.among = [];
  }

  show(among) {
    this.among = among;
    if (this.host.hidden) return;
    const chosen = new Set(tableColumns(this.rows));
    this.host.replaceChildren(
      element("h3", {}, "Columns"), element("p", { class: "muted" }, "of the rows shown; a tick puts a column into the table"),
      ...[...this.rows.columns.keys()].map((name) => this.line(name, chosen)));
  }

  line(name, chosen) {
    const body = element("div");
    const fill = () => { if (!body.childElementCount) body.append(facetNode(this.rows, name, this.among, { add: true })); };
    const tick = element("input", { type: "checkbox", "aria-label": `${name} in the table`, checked: chosen.has(name), change: () => this.toggle(name, chosen) });
    const details = element("details", { open: this.opened.has(name), toggle: () => { this.opened[details.open ? "add" : "delete"](name); if (details.open) fill(); } },
      element("summary", {}, name, element("span", { class: "muted" }, ` ${this.rows.kind(name)}`)), body);
    if (this.opened.has(name)) fill();
    return element("div", { class: "column" }, tick, details);
  }

  toggle(name, chosen) {
    chosen[chosen.has(name) ? "delete" : "add"](name);
    state.go({ columns: JSON.stringify([...this.rows.columns.keys()].filter((one) => chosen.has(one))), layout: "table" });
  }
}

function tableColumns(rows) { // those chosen, or the usual ones
  try {
    const chosen = JSON.parse(state.current.columns).filter((name) => rows.columns.has(name));
    if (chosen.length) return chosen;
  } catch { /* none were chosen */ }
  const parts = [...rows.components.values()].flatMap((name) => [name, `${name}.answer`, `${name}.outcome`, `${name}.reason`]);
  const usual = ["id", "step", "group", "reward", "advantage", "label", "prompt", "reference", ...parts, "finish", "tokens", "characters", "turns", "dropped"];
  const rest = [...rows.columns.keys()].filter((name) => !usual.includes(name) && name !== "completion");
  return [...usual, "completion", ...rest].filter((name) => rows.columns.has(name));
}
