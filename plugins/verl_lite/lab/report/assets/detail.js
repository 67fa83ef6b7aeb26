// The chosen row: its scores, its conversation and all its columns; or all samples of its group side by side.

const SHOWN = [["rendered", "Rendered"], ["text", "Text"], ["tokens", "Tokens"]];

class Detail {
  constructor(host, rows, head) {
    this.host = host;
    this.rows = rows;
    this.tokenTexts = new Map(Object.entries(head.token_texts));
    this.hasBefore = rows.columns.has("changed");
    this.measure = null;
    this.row = -1;
  }

  clear(text) {
    this.row = -1;
    this.host.replaceChildren(element("p", { class: "muted" }, text));
  }

  async open(row) {
    this.row = row;
    const group = this.rows.groupOf(row);
    await Promise.all([...new Set(group.map((one) => this.rows.blockOf[one]))].map((block) => this.rows.loadBlock(this.rows.blocks[block])));
    if (this.row !== row) return;
    const pane = state.current.pane === "group" && group.length > 1 ? this.groupNodes(row, group) : this.rowNodes(row);
    this.host.replaceChildren(this.bar(row, group), ...pane);
    this.host.scrollTop = 0;
  }

  bar(row, group) {
    const at = group.indexOf(row);
    const go = (name, changes, label, pressed) => element("button", { type: "button", "aria-label": name, title: name, "aria-pressed": pressed === undefined ? null : String(pressed), click: () => state.go(changes) }, label);
    const { pane, show } = state.current;
    return element("div", { class: "bar" },
      element("button", { type: "button", class: "back", click: () => document.body.classList.remove("reading") }, "‹ Rows"),
      group.length > 1 ? [
        go("previous sample of the group", { row: String(group[(at - 1 + group.length) % group.length]) }, "‹"),
        element("span", { class: "muted" }, `sample ${at + 1} of ${group.length}`),
        go("next sample of the group", { row: String(group[(at + 1) % group.length]) }, "›"),
        go("the samples of the group side by side (g)", { pane: pane === "group" ? "row" : "group" }, "Group", pane === "group"),
      ] : null,
      element("span", { class: "choices", role: "group", "aria-label": "How texts are shown" }, SHOWN.filter(([name]) => name !== "tokens" || this.rows.columns.has("tokens")).map(([name, label]) => go(`show ${name}`, { show: name }, label, show === name))));
  }

  rowNodes(row) {
    const { rows } = this;
    return [
      element("h3", { id: "row-id" }, shown(rows.get("id", row))),
      element("p", { class: "muted" }, this.facts(row).join(" · ")),
      this.rewardNode(row),
      rows.components.size ? this.scoresNode(row) : element("p", { class: "muted" }, "These rollouts were not scored: verl-lite score writes records with scores."),
      this.textNode(row),
      rows.get("reference", row) === null ? null : element("section", { class: "message given" }, element("h4", {}, element("span", { class: "role" }, "reference")), plainNode(String(rows.get("reference", row)))),
      this.columnsNode(row),
    ].filter(Boolean);
  }

  facts(row) {
    const label = this.rows.get("label", row);
    return [
      ...["step", "group", "finish"].map((name) => [name, this.rows.get(name, row)]).filter(([, value]) => value !== null).map(([name, value]) => `${name} ${value}`),
      label === null ? null : `label: ${label ? "correct" : "wrong"}`,
      plural(this.rows.get("characters", row), "character"), this.rows.get("tokens", row) === null ? null : plural(this.rows.get("tokens", row), "token"),
    ].filter(Boolean);
  }

  rewardNode(row) {
    const [reward, advantage, dropped] = ["reward", "advantage", "dropped"].map((name) => this.rows.get(name, row));
    const before = this.hasBefore ? this.change(this.rows.get("before.reward", row), reward) : null;
    return element("p", {}, "reward ", before ?? element("b", {}, number(reward)), advantage === null ? null : `, advantage ${number(advantage)}`,
      dropped ? element("span", { class: "none" }, ` dropped: ${dropped}`) : null);
  }

  change(before, after) {
    return before === after ? element("b", {}, shown(after)) : element("b", { class: "changed" }, `${shown(before)} → ${shown(after)}`);
  }

  scoresNode(row) {
    const details = this.rows.hidden("#details", row) ?? {};
    const get = (name) => this.rows.get(name, row);
    const lines = [...this.rows.components].flatMap(([name, column]) => {
      const was = (end) => (this.hasBefore ? this.change(get(`before.${column}${end}`), get(`${column}${end}`)) : shown(get(`${column}${end}`)));
      const said = was(".reason");
      const reason = element("div", {}, (said.textContent ?? said) === "–" ? null : said);
      if (Object.hasOwn(details, name)) reason.append(element("details", {}, element("summary", {}, "details"), element("pre", {}, JSON.stringify(details[name], null, 1))));
      const ms = get(`${column}.ms`);
      const values = [name, was(""), was(".outcome"), shown(get(`${column}.answer`)), number(get(`${column}.contribution`)), ms === null ? "–" : `${number(ms, 3)}\u00a0ms`];
      return reason.textContent ? [values, [reason]] : [values];
    });
    return table(["component", "value", "outcome", "answer", "contributes", "time"], lines);
  }

  // the values that can be drawn over the text: steps of a component, or one per token
  measures(row) {
    const steps = Object.entries(this.rows.hidden("#steps", row) ?? {}).map(([name, spans]) => [`steps of ${name}`, spans]);
    const tokens = Object.keys(this.rows.hidden("#tokens", row) ?? {}).filter((name) => name !== "ids");
    return { steps: new Map(steps.filter(([, spans]) => spans.every((span) => span.unit === "char"))), tokens };
  }

  textNode(row) {
    const { steps, tokens } = this.measures(row);
    const { show } = state.current;
    const names = show === "tokens" ? ["logprobs", "rewards", "versions"].filter((name) => tokens.includes(name)) : ["", ...steps.keys()];
    const usual = show === "rendered" ? names[0] : names.find(Boolean) ?? names[0];
    const chosen = names.includes(this.measure) ? this.measure : usual;
    const select = names.length < 2 ? null : element("label", { class: "measure" }, "Colour by ", element("select", { id: "measure", change: (event) => { this.measure = event.target.value; this.open(row); } },
      names.map((name) => element("option", { value: name, selected: name === chosen }, name || "nothing"))));
    if (show === "tokens") return element("div", {}, select, tokensNode(this.rows, row, chosen, this.tokenTexts));
    const spans = (steps.get(chosen) ?? []).map((span) => ({ ...span, name: chosen }));
    return element("div", {}, select, spans.length ? legend(spans.map((span) => span.value)) : null, conversationNode(this.rows, row, this.options(row, spans)));
  }

  // the steps that score whole turns: turn -> ["name value"]
  turnValues(row) {
    const found = new Map();
    for (const [name, spans] of Object.entries(this.rows.hidden("#steps", row) ?? {})) {
      for (const span of spans.filter((one) => one.unit === "turn")) {
        for (let turn = span.start; turn < span.end && turn - span.start < 1000; turn += 1) found.set(turn, [...(found.get(turn) ?? []), `${name} ${number(span.value)}`]);
      }
    }
    return found;
  }

  options(row, spans = []) {
    const answers = [...new Set([...this.rows.components.values()].map((column) => this.rows.get(`${column}.answer`, row)).filter(Boolean))];
    return { show: state.current.show, search: state.current.text, answers, spans, turnValues: this.turnValues(row) };
  }

  groupNodes(row, group) {
    const messages = this.rows.hidden("#messages", row);
    return [
      element("h3", {}, `Group ${shown(this.rows.get("group", row))}`),
      element("p", { class: "muted" }, `mean reward ${number(this.rows.get("group.mean", row))}, spread ${number(this.rows.get("group.spread", row))}${this.rows.get("reference", row) === null ? "" : `, reference ${shortened(String(this.rows.get("reference", row)), 200)}`}`),
      element("details", { open: true }, element("summary", {}, "question"), messages ? messages.map((message) => messageNode(message, { show: state.current.show, search: state.current.text, answers: [], spans: [] })) : renderedNode(this.rows.get("prompt", row) ?? "")),
      element("div", { class: "samples", tabindex: "0" }, group.map((one) => this.sampleNode(one, one === row))),
    ];
  }

  sampleNode(row, isChosen) {
    const options = this.options(row);
    const turns = this.rows.hidden("#turns", row) ?? [{ role: "assistant", content: this.rows.get("completion", row) ?? "" }];
    return element("section", { class: `sample${isChosen ? " chosen" : ""}` },
      element("h4", {}, element("a", { href: state.link({ row: String(row), pane: "row" }) }, shown(this.rows.get("id", row))), " ", outcomeNode(this.rows, row)),
      [...this.rows.components].map(([name, column]) => element("p", { class: "muted" }, [`${name} ${number(this.rows.get(column, row))}`, shortened(this.rows.get(`${column}.reason`, row) ?? "", 120)].filter(Boolean).join(": "))),
      turns.map((turn, index) => messageNode({ ...turn, sampled: true, values: options.turnValues.get(index) }, index === turns.length - 1 ? options : { ...options, answers: [] })));
  }

  columnsNode(row) {
    const lines = [...this.rows.columns.keys()].filter((name) => name !== "completion" && name !== "prompt").map((name) => [name, this.rows.get(name, row)]).filter(([, value]) => value !== null);
    const cell = ([name, value]) => [name, rowsLink(equals(name, value), shortened(String(value), 300), { add: true, title: "show the rows with this value, of those shown" })];
    return element("details", { id: "all-columns" }, element("summary", {}, `All ${lines.length} columns`), table(["column", "value"], lines.map(cell)));
  }
}

function outcomeNode(rows, row) { // the reward, coloured by the verdict on the answer, or else by its sign
  const [reward, verdict] = [rows.get("reward", row), rows.get(rows.primary, row)];
  const isGood = verdict === 0 || verdict === 1 ? verdict === 1 : reward > 0;
  return element("span", { class: `value ${reward === null ? "none" : isGood ? "high" : "low"}` }, number(reward, 3));
}
