"use strict";
// The rollout browser: filters over columns, a list that holds only the rows in sight, one open row.

const ROW_HEIGHT = 52;
const MAX_LIST_PX = 8_000_000; // browsers clip taller elements; past it, scrolling moves in larger steps

class Browser {
  constructor(data) {
    this.rows = data;
    this.size = data.id.length;
    this.names = Object.keys(data.components);
    this.shown = [];
    this.chosen = -1;
    this.descending = true;
    this.list = document.getElementById("list");
    this.spacer = document.getElementById("spacer");
    this.fillChoices();
    this.listen();
    this.apply();
  }

  text(index) { return this.rows.texts[index]; }

  field(id) { return document.getElementById(id); }

  fillChoices() {
    const outcomes = new Set(this.names.flatMap((name) => this.rows.components[name].outcome).map((i) => this.text(i)));
    outcomes.delete("");
    const options = (pairs) => pairs.map(([value, label]) => element("option", { value }, label));
    this.field("f-component").replaceChildren(...options([["", "reward"], ...this.names.map((name) => [name, name])]));
    this.field("f-outcome").replaceChildren(...options([["", "any outcome"], ...[...outcomes].sort().map((o) => [o, o])]));
    this.field("f-special").replaceChildren(...options([
      ["", "all rows"], ["disagrees", "disagrees with label"], ["dropped", "dropped"], ["truncated", "truncated"], ["varied", "groups with variance"],
    ]));
    this.field("f-sort").replaceChildren(...options([
      ["position", "in file order"], ["value", "by value"], ["advantage", "by advantage"], ["length", "by length"], ["latency", "by latency"], ["step", "by step"],
    ]));
  }

  listen() {
    let pending = 0;
    const later = () => { clearTimeout(pending); pending = setTimeout(() => this.apply(), 120); };
    for (const id of ["f-text", "f-group", "f-step", "f-low", "f-high"]) this.field(id).addEventListener("input", later);
    for (const id of ["f-component", "f-outcome", "f-special", "f-sort"]) this.field(id).addEventListener("change", () => this.apply());
    this.field("f-order").addEventListener("click", () => { this.descending = !this.descending; this.apply(); });
    this.field("filters").addEventListener("reset", () => setTimeout(() => this.apply(), 0));
    this.field("filters").addEventListener("submit", (event) => event.preventDefault());
    this.list.addEventListener("scroll", () => this.draw());
    this.list.addEventListener("keydown", (event) => this.move(event));
    new ResizeObserver(() => this.draw()).observe(this.list);
  }

  move(event) {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 }[event.key];
    if (!step || !this.shown.length) return;
    event.preventDefault();
    const at = Math.min(Math.max(this.shown.indexOf(this.chosen) + step, 0), this.shown.length - 1);
    this.open(this.shown[at]);
    const top = at * this.step;
    if (top < this.list.scrollTop) this.list.scrollTop = top;
    else if (top + ROW_HEIGHT > this.list.scrollTop + this.list.clientHeight) this.list.scrollTop = top + ROW_HEIGHT - this.list.clientHeight;
    this.draw();
  }

  value(row) {
    const name = this.field("f-component").value;
    return name ? this.rows.components[name].value[row] : this.rows.reward[row];
  }

  filters() {
    const tests = [];
    const rows = this.rows;
    const wanted = this.field("f-text").value.toLowerCase();
    if (wanted) {
      const hits = new Set(rows.texts.flatMap((text, index) => (text.toLowerCase().includes(wanted) ? [index] : [])));
      tests.push((row) => hits.has(rows.prompt[row]) || hits.has(rows.reference[row]) || rows.completion[row].toLowerCase().includes(wanted)
        || rows.id[row].toLowerCase().includes(wanted) || this.names.some((name) => hits.has(rows.components[name].reason[row])));
    }
    const group = this.field("f-group").value;
    if (group) tests.push((row) => rows.group[row].includes(group));
    const step = this.field("f-step").value;
    if (step !== "") tests.push((row) => rows.step[row] === Number(step));
    const outcome = this.field("f-outcome").value;
    const component = this.field("f-component").value;
    const among = component ? [component] : this.names;
    if (outcome) tests.push((row) => among.some((name) => this.text(rows.components[name].outcome[row]) === outcome));
    const [low, high] = [this.field("f-low").value, this.field("f-high").value];
    if (low !== "") tests.push((row) => this.value(row) !== null && this.value(row) >= Number(low));
    if (high !== "") tests.push((row) => this.value(row) !== null && this.value(row) <= Number(high));
    const special = this.field("f-special").value;
    if (special) tests.push(this.specialTest(special, component));
    return tests;
  }

  specialTest(special, component) {
    const rows = this.rows;
    if (special === "dropped") return (row) => this.text(rows.dropped[row]) !== "";
    if (special === "truncated") return (row) => this.text(rows.finish[row]) === "length";
    if (special === "disagrees") {
      const values = component ? rows.components[component].value : this.names.length ? rows.components[this.names[0]].value : rows.reward;
      return (row) => rows.label[row] !== null && values[row] !== null && (values[row] >= 0.5) !== rows.label[row];
    }
    const range = new Map();
    for (let row = 0; row < this.size; row += 1) {
      const value = rows.reward[row];
      if (value === null) continue;
      const key = `${rows.step[row]} ${rows.group[row]}`;
      const [least, most] = range.get(key) || [value, value];
      range.set(key, [Math.min(least, value), Math.max(most, value)]);
    }
    return (row) => { const [least, most] = range.get(`${rows.step[row]} ${rows.group[row]}`) || [0, 0]; return most > least; };
  }

  apply() {
    const tests = this.filters();
    this.shown = [];
    for (let row = 0; row < this.size; row += 1) if (tests.every((test) => test(row))) this.shown.push(row);
    this.sort();
    this.field("f-order").textContent = this.descending ? "↓" : "↑";
    this.field("count").textContent = `${number(this.shown.length)} of ${number(this.size)} rollouts`;
    const height = Math.min(this.shown.length * ROW_HEIGHT, MAX_LIST_PX);
    this.spacer.style.height = `${height}px`;
    this.list.scrollTop = 0;
    this.draw();
    if (this.shown.length) this.open(this.shown[0]);
    else this.field("detail").replaceChildren(element("p", { class: "muted" }, "No rollout fits the filters."));
  }

  show(row) { // that row, among those of its step
    for (const filter of ["text", "group", "component", "outcome", "low", "high", "special"]) this.field(`f-${filter}`).value = "";
    this.field("f-step").value = this.rows.step[row];
    this.apply();
    this.list.scrollTop = Math.max(this.shown.indexOf(row) - 2, 0) * this.step;
    this.open(row);
  }

  sort() {
    const by = this.field("f-sort").value;
    const rows = this.rows;
    const component = this.field("f-component").value;
    const latency = (row) => (component ? [component] : this.names).reduce((sum, name) => sum + (rows.components[name].latency[row] || 0), 0);
    const keys = {
      value: (row) => this.value(row), advantage: (row) => rows.advantage[row], length: (row) => rows.completion[row].length,
      latency, step: (row) => rows.step[row], position: (row) => -row,
    };
    const key = keys[by];
    const sign = this.descending ? -1 : 1;
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === y) return a - b;
      if (x === null) return 1; // rows without a value come last in either order
      if (y === null) return -1;
      return x < y ? -sign : sign;
    };
    this.shown.sort(order);
  }

  get step() { // pixels of scrolling per row
    return this.shown.length ? Math.min(ROW_HEIGHT, MAX_LIST_PX / this.shown.length) : ROW_HEIGHT;
  }

  draw() {
    const first = Math.max(Math.floor(this.list.scrollTop / this.step) - 4, 0);
    const visible = Math.ceil(this.list.clientHeight / ROW_HEIGHT) + 8;
    const top = this.step === ROW_HEIGHT ? first * ROW_HEIGHT : Math.max(this.list.scrollTop - 4 * ROW_HEIGHT, 0);
    const nodes = this.shown.slice(first, first + visible).map((row, index) => this.rowNode(row, top + index * ROW_HEIGHT));
    this.spacer.replaceChildren(...nodes);
  }

  rowNode(row, top) {
    const rows = this.rows;
    const value = this.value(row);
    const style = value === null ? "none" : value > 0 ? "high" : "low";
    const step = rows.step[row] === null ? "" : `step ${rows.step[row]} · `;
    const node = element("div", { class: "row", role: "option", "aria-selected": String(row === this.chosen), "data-row": String(row) },
      element("div", { class: "top" },
        element("span", { class: `value ${style}` }, value === null ? "dropped" : number(value)),
        element("span", { class: "who" }, `${step}${rows.group[row]} · ${rows.id[row]}`),
        rows.advantage[row] === null ? null : element("span", { class: "chips muted" }, `A ${number(rows.advantage[row], 3)}`)),
      element("div", { class: "text" }, rows.completion[row].slice(-220).replace(/\s+/g, " ")));
    node.style.top = `${top}px`;
    node.addEventListener("click", () => this.open(row));
    return node;
  }

  open(row) {
    this.chosen = row;
    for (const node of this.spacer.children) node.setAttribute("aria-selected", String(Number(node.dataset.row) === row));
    const rows = this.rows;
    const facts = [
      rows.step[row] === null ? null : `step ${rows.step[row]}`, `group ${rows.group[row]}`,
      this.text(rows.finish[row]) ? `finish: ${this.text(rows.finish[row])}` : null,
      rows.label[row] === null ? null : `label: ${rows.label[row] ? "correct" : "wrong"}`,
      `${number(rows.completion[row].length)} characters`,
    ];
    const dropped = this.text(rows.dropped[row]);
    this.field("detail").replaceChildren(
      element("h3", {}, rows.id[row]),
      element("p", { class: "muted" }, facts.filter(Boolean).join(" · ")),
      element("p", {}, `reward ${number(rows.reward[row])}`, rows.advantage[row] === null ? "" : `, advantage ${number(rows.advantage[row])}`,
        dropped ? element("span", { class: "none" }, ` dropped: ${dropped}`) : null),
      this.names.length ? this.scores(row) : element("p", { class: "muted" }, "These rollouts were not scored: verl-lite score writes records with scores."),
      element("h3", {}, "Prompt"), element("pre", {}, this.text(rows.prompt[row]) || "–"),
      element("h3", {}, "Completion"), element("pre", { id: "completion" }, ...this.marked(row)),
      element("h3", {}, "Reference"), element("pre", {}, this.text(rows.reference[row]) || "–"));
  }

  scores(row) {
    const lines = this.names.map((name) => {
      const part = this.rows.components[name];
      const details = this.text(part.details[row]);
      const reason = element("span", {}, this.text(part.reason[row]) || "–");
      if (details) reason.append(element("details", {}, element("summary", { class: "muted" }, "details"), element("pre", {}, pretty(details))));
      const latency = part.latency[row];
      return [name, number(part.value[row]), this.text(part.outcome[row]), number(part.contribution[row]), latency === null ? "–" : `${number(latency * 1000, 3)} ms`, reason];
    });
    return table(["component", "value", "outcome", "contributes", "time", "reason"], lines);
  }

  // The completion with the last occurrence of each extracted answer, and every hit of the text filter, marked.
  marked(row) {
    const text = this.rows.completion[row];
    const spans = [];
    for (const name of this.names) {
      const answer = this.text(this.rows.components[name].extracted[row]);
      const start = answer ? text.lastIndexOf(answer) : -1;
      if (start >= 0) spans.push([start, start + answer.length, "answer"]);
    }
    const wanted = this.field("f-text").value.toLowerCase();
    const lower = text.toLowerCase();
    for (let at = wanted ? lower.indexOf(wanted) : -1; at >= 0 && spans.length < 500; at = lower.indexOf(wanted, at + wanted.length)) {
      spans.push([at, at + wanted.length, ""]);
    }
    spans.sort((a, b) => a[0] - b[0]);
    const nodes = [];
    let end = 0;
    for (const [from, to, kind] of spans) {
      if (from < end) continue;
      nodes.push(text.slice(end, from), element("mark", { class: kind }, text.slice(from, to)));
      end = to;
    }
    nodes.push(text.slice(end));
    return nodes;
  }
}

function pretty(json) {
  return JSON.stringify(JSON.parse(json), null, 1);
}
