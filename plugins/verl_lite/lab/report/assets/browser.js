// The rollout browser: a search, a filter and an order decide which rows are shown; one of them is open.

class Browser {
  constructor(rows, head) {
    this.rows = rows;
    this.shown = [];
    this.orders = new Map();
    this.list = new RowList(byId("list"), byId("heads"), rows);
    this.list.onChoose = (row, read) => {
      if (read) document.body.classList.add("reading");
      state.go({ row: String(row) });
      if (read && window.matchMedia("(max-width: 900px)").matches) byId("detail").focus();
    };
    this.detail = new Detail(byId("detail"), rows, head);
    this.panel = new ColumnsPanel(byId("columns"), rows);
    this.fillChoices();
    this.listen();
    state.onChange((_, changed) => this.changed(changed));
  }

  fillChoices() {
    const option = ([value, label]) => element("option", { value }, label);
    const names = ["reward", "advantage", "group.spread", ...this.rows.components.values(), "characters", "tokens", "turns", `${this.rows.primary}.ms`, "step", "advantage.change"];
    const sorts = [...new Set(names)].filter((name) => this.rows.columns.has(name)).flatMap((name) => [[`-${name}`, `${name}, high first`], [name, `${name}, low first`]]);
    byId("f-sort").replaceChildren(...[["", "in file order"], ...sorts].map(option));
    byId("f-layout").replaceChildren(...[["list", "as a list"], ["table", "as a table"]].map(option));
    byId("names").replaceChildren(...[...this.rows.columns.keys()].map((name) => option([nameText(name), ""])));
  }

  listen() {
    let pending = 0;
    const later = (changes) => { clearTimeout(pending); pending = setTimeout(() => state.go(changes()), 120); };
    for (const name of ["text", "where"]) byId(`f-${name}`).addEventListener("input", () => later(() => ({ text: byId("f-text").value, where: byId("f-where").value, row: "" })));
    byId("f-sort").addEventListener("change", (event) => state.go({ sort: event.target.value, row: "" }));
    byId("f-layout").addEventListener("change", (event) => state.go({ layout: event.target.value }));
    byId("f-clear").addEventListener("click", () => state.go({ text: "", where: "", sort: "", row: "" }));
    byId("f-export").addEventListener("click", () => this.save());
    byId("f-columns").addEventListener("click", () => this.togglePanel());
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
  }

  togglePanel() {
    const panel = byId("columns");
    panel.hidden = !panel.hidden;
    byId("f-columns").setAttribute("aria-expanded", String(!panel.hidden));
    document.body.classList.toggle("with-columns", !panel.hidden);
    this.panel.show(this.shown);
  }

  async start() {
    document.body.classList.toggle("reading", state.current.row !== "");
    await this.apply();
  }

  changed(changed) {
    const has = (...names) => names.some((name) => changed.has(name));
    if (has("text", "where", "sort", "layout", "columns")) this.apply();
    else if (has("row", "pane", "show", "view")) this.open(this.chosen());
  }

  chosen() {
    const row = Number(state.current.row);
    return state.current.row !== "" && Number.isInteger(row) && row >= 0 && row < this.rows.size ? row : this.shown[0] ?? -1;
  }

  async apply() {
    const { text, where, sort, layout } = state.current;
    const turn = (this.turn = (this.turn || 0) + 1);
    this.fill();
    const [problem, read] = this.compiled(where);
    byId("problem").textContent = problem;
    byId("f-where").setAttribute("aria-invalid", String(Boolean(problem)));
    if (problem && this.shown.length) return; // a filter that cannot be read leaves the rows as they are
    const test = read ?? parseExpression("", this.rows);
    if ((text || test.long || this.rows.kind(sortOf(sort)[0]) === "long") && !this.rows.allLoaded) {
      byId("count").textContent = "Reading all texts…";
      await this.rows.loadAll();
      if (turn !== this.turn) return;
    }
    this.shown = this.filtered(text, test.test, sort);
    byId("count").textContent = `${number(this.shown.length)} of ${plural(this.rows.size, "rollout")}`;
    this.list.set(this.shown, layout === "table" ? "table" : "list", tableColumns(this.rows));
    document.body.classList.toggle("with-table", layout === "table");
    this.panel.show(this.shown);
    await this.open(this.chosen());
  }

  fill() { // the controls show the state
    for (const name of ["text", "where", "sort", "layout"]) {
      const field = byId(`f-${name}`);
      if (name === "sort" && ![...field.options].some((option) => option.value === state.current.sort)) field.append(element("option", { value: state.current.sort }, state.current.sort));
      if (field.value !== state.current[name]) field.value = state.current[name];
    }
  }

  compiled(where) {
    try {
      return ["", parseExpression(where, this.rows)];
    } catch (error) {
      if (error instanceof ExpressionError) return [error.message, null];
      throw error;
    }
  }

  filtered(text, test, sort) {
    const order = this.order(sort);
    const found = text ? this.rows.search(text) : null;
    const kept = [];
    for (const row of order) if (test(row) && (!found || found(row))) kept.push(row);
    return kept;
  }

  order(sort) { // all rows in that order; those without a value come last
    const [name, sign] = sortOf(sort);
    const read = this.rows.reader(name);
    if (this.orders.has(sort)) return this.orders.get(sort);
    const order = Uint32Array.from({ length: this.rows.size }, (_, row) => row);
    if (read) {
      const values = Array.from(order, read);
      order.sort((a, b) => {
        const [x, y] = [values[a], values[b]];
        if (x === y) return a - b;
        if (x === null) return 1;
        if (y === null) return -1;
        return x < y ? -sign : sign;
      });
    }
    this.orders.set(sort, order);
    return order;
  }

  async open(row) {
    document.body.classList.toggle("with-group", state.current.pane === "group");
    this.list.choose(row);
    if (row < 0) this.detail.clear("No rollout fits the filter.");
    else await this.detail.open(row);
  }

  move(step) {
    if (!this.shown.length) return;
    const at = this.shown.indexOf(this.chosen());
    state.go({ row: String(this.shown[Math.min(Math.max(at + step, 0), this.shown.length - 1)]) });
  }

  sibling(step) {
    const row = this.chosen();
    if (row < 0) return;
    const group = this.rows.groupOf(row);
    state.go({ row: String(group[(group.indexOf(row) + step + group.length) % group.length]) });
  }

  async save() {
    await this.rows.loadAll();
    const parts = this.shown.map((row) => `${JSON.stringify(recordOf(this.rows, row))}\n`);
    const address = URL.createObjectURL(new Blob(parts, { type: "application/jsonl" }));
    const link = element("a", { href: address, download: `${document.title.split(" · ")[0].replace(/[^\w.-]+/g, "_") || "rollouts"}.jsonl` });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  }
}

// A row as verl-lite reads it: a record with its scores, and the columns of the data set.
function recordOf(rows, row) {
  const get = (name) => rows.get(name, row);
  const [details, steps, tokens] = ["#details", "#steps", "#tokens"].map((name) => rows.hidden(name, row) ?? {});
  const components = [...rows.components].filter(([, column]) => get(`${column}.outcome`) !== null).map(([name, column]) => ({
    name, value: get(column), outcome: get(`${column}.outcome`), reason: get(`${column}.reason`) ?? "", weight: get(`${column}.weight`), contribution: get(`${column}.contribution`),
    latency_s: (get(`${column}.ms`) ?? 0) / 1000, details_json: Object.hasOwn(details, name) ? JSON.stringify(details[name]) : null, steps_json: Object.hasOwn(steps, name) ? JSON.stringify(steps[name]) : null,
  }));
  const own = [...rows.columns.values()].filter((column) => column.of).map((column) => [column.of, column.json ? JSON.parse(get(column.name)) : get(column.name)]);
  const record = {
    id: get("id"), group: get("group"), sample_index: get("sample"), step: get("step"), policy_version: get("policy_version"),
    prompt: rows.hidden("#messages", row) ?? (get("prompt") === null ? null : [{ role: "user", content: get("prompt") }]), completion: get("completion") ?? "", reference: get("reference"),
    finish_reason: get("finish"), reward: get("reward"), advantage: get("advantage"), dropped_because: get("dropped"), components,
    completion_ids: tokens.ids, logprobs: tokens.logprobs, token_rewards: tokens.rewards, token_versions: tokens.versions, turns: rows.hidden("#turns", row),
  };
  return Object.fromEntries([...Object.entries(record), ...own].filter(([, value]) => value !== null && value !== undefined));
}
