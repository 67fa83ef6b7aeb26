// The rows, as a list of questions and answers or as a table; only those in sight are in the document.

const HEIGHTS = { list: 58, table: 30 };
const MAX_LIST_PX = 8_000_000; // browsers clip taller elements; past it, scrolling moves in larger steps
const MAX_CELL = 200;
const LIMITS = ["length", "turns", "tool_seconds", "context"]; // finish reasons of what was cut

class RowList {
  constructor(host, heads, rows) {
    Object.assign(this, { host, heads, rows });
    this.shown = [];
    this.chosen = -1;
    this.layout = "list";
    this.names = [];
    this.spacer = element("div", { class: "spacer", role: "presentation" });
    host.append(this.spacer);
    host.addEventListener("scroll", () => this.draw());
    host.addEventListener("click", (event) => {
      const node = event.target.closest(".row");
      if (node) this.onChoose(Number(node.dataset.row), true);
    });
    new ResizeObserver(() => this.draw()).observe(host);
  }

  set(shown, layout, names) {
    Object.assign(this, { shown, layout, names });
    this.host.classList.toggle("table", layout === "table");
    this.height = HEIGHTS[layout];
    this.spacer.style.height = `${Math.min(shown.length * this.height, MAX_LIST_PX)}px`;
    this.drawHeads();
    this.host.scrollTop = 0;
    this.draw();
  }

  choose(row) {
    this.chosen = row;
    const at = this.shown.indexOf(row);
    if (at >= 0) {
      const top = at * this.step;
      if (top < this.host.scrollTop) this.host.scrollTop = top;
      else if (top + this.height > this.host.scrollTop + this.host.clientHeight) this.host.scrollTop = top + this.height - this.host.clientHeight;
    }
    this.draw();
  }

  get step() { return this.shown.length ? Math.min(this.height, MAX_LIST_PX / this.shown.length) : this.height; }

  draw() {
    const first = Math.max(Math.floor(this.host.scrollTop / this.step) - 4, 0);
    const visible = Math.ceil(this.host.clientHeight / this.height) + 8;
    const top = this.step === this.height ? first * this.height : Math.max(this.host.scrollTop - 4 * this.height, 0);
    const rows = this.shown.slice(first, first + visible);
    this.spacer.replaceChildren(...rows.map((row, index) => this.rowNode(row, first + index, top + index * this.height)));
    this.host.setAttribute("aria-activedescendant", rows.includes(this.chosen) ? `option-${this.chosen}` : "");
    const missing = rows.find((row) => !this.rows.isLoaded(row));
    if (missing !== undefined) this.rows.load(missing).then(() => this.draw());
  }

  rowNode(row, index, top) {
    const node = element("div", {
      class: "row", role: "option", id: `option-${row}`, "aria-selected": String(row === this.chosen), "data-row": String(row), "aria-posinset": String(index + 1), "aria-setsize": String(this.shown.length),
    }, this.layout === "table" ? this.cells(row) : this.lines(row));
    node.style.top = `${top}px`;
    return node;
  }

  lines(row) {
    const { rows } = this;
    if (!rows.isLoaded(row)) return ["…"];
    const [answer, outcome, reason] = [".answer", ".outcome", ".reason"].map((end) => rows.get(rows.primary + end, row));
    const reference = rows.get("reference", row);
    const label = rows.get("label", row);
    const value = rows.get(rows.primary, row);
    const wrong = label !== null && value !== null && (value >= 0.5) !== label;
    const end = oneLine((rows.get("completion", row) ?? "").slice(-400));
    const said = answer === null ? (end.length > 36 ? `…${end.slice(-36)}` : end) : shortened(oneLine(answer), 80);
    return [
      element("div", { class: "top" }, outcomeNode(rows, row), element("span", { class: "question" }, shortened(oneLine(question(rows, row)), MAX_CELL) || "–"),
        element("span", { class: "who muted" }, this.who(row))),
      element("div", { class: "under" },
        element("span", { class: answer === null ? "said muted" : "said" }, said || "nothing"),
        reference === null ? null : element("span", { class: "muted" }, ` of ${shortened(oneLine(String(reference)), 60)}`),
        outcome && outcome !== "ok" ? element("span", { class: "badge bad" }, outcome) : null,
        wrong ? element("span", { class: "badge bad" }, `label: ${label ? "correct" : "wrong"}`) : null,
        rows.get("dropped", row) === null ? null : element("span", { class: "badge" }, "dropped"),
        LIMITS.includes(rows.get("finish", row)) ? element("span", { class: "badge" }, "cut") : null,
        rows.get("changed", row) ? element("span", { class: "badge" }, `was ${number(rows.get("before.reward", row), 3)}`) : null,
        element("span", { class: "muted reason" }, reason ? shortened(oneLine(reason), 90) : "")),
    ];
  }

  who(row) {
    const step = this.rows.get("step", row);
    return `${step === null ? "" : `step ${step} · `}${shortened(shown(this.rows.get("id", row)), 24)}`;
  }

  cells(row) {
    return this.names.map((name) => {
      const value = this.rows.isLoaded(row) || this.rows.kind(name) !== "long" ? this.rows.get(name, row) : "…";
      return element("span", { class: this.rows.kind(name) === "number" ? "cell number" : "cell" }, typeof value === "string" ? shortened(oneLine(value), MAX_CELL) : shown(value));
    });
  }

  drawHeads() {
    this.heads.hidden = this.layout !== "table";
    const [by, sign] = sortOf(state.current.sort);
    const widths = this.names.map((name) => (this.rows.kind(name) === "number" ? "90px" : this.rows.kind(name) === "long" ? "280px" : "150px")).join(" ");
    this.host.style.setProperty("--columns", widths);
    this.heads.style.setProperty("--columns", widths);
    this.heads.replaceChildren(...this.names.map((name) => element("button", {
      type: "button", class: this.rows.kind(name) === "number" ? "number" : null, title: `sort by ${name}`, "aria-pressed": String(name === by), click: () => state.go({ sort: name === by && sign < 0 ? name : `-${name}` }),
    }, name === by ? `${name} ${sign < 0 ? "↓" : "↑"}` : name)));
    this.host.onscroll = () => { this.heads.scrollLeft = this.host.scrollLeft; };
  }
}

function sortOf(text) { // [column, 1 or -1]
  return text.startsWith("-") ? [text.slice(1), -1] : [text, 1];
}
