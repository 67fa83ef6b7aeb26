// Elements and numbers. Text of a rollout only ever becomes a text node.

// attributes: texts, true for one without a value, functions for listeners of the event of that name
function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function byId(id) { return document.getElementById(id); }

function number(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size >= 1000 && size < 1e7) return Number(value.toPrecision(digits)).toLocaleString("en");
  return size !== 0 && (size < 1e-4 || size >= 1e7) ? value.toExponential(2) : String(Number(value.toPrecision(digits)));
}

function shown(value, digits = 4) { // any value of a column
  if (value === null || value === undefined) return "–";
  return typeof value === "number" ? number(value, digits) : String(value);
}

function percent(part, whole) { return whole ? `${((100 * part) / whole).toFixed(1)}%` : "–"; }

function plural(count, word) { return `${number(count)} ${word}${count === 1 ? "" : "s"}`; }

function shortened(text, most) { return text.length > most ? `${text.slice(0, most - 1)}…` : text; }

function oneLine(text) { return text.replace(/\s+/g, " ").trim(); }

function table(columns, rows) { // a row of one cell is as wide as the table
  const head = element("tr", {}, columns.map((text) => element("th", { scope: "col" }, text)));
  const body = rows.map((row) => element("tr", {}, row.map((cell) => element("td", { colspan: row.length === 1 && columns.length > 1 ? columns.length : null }, cell))));
  return element("div", { class: "scroll", tabindex: "0" }, element("table", {}, element("thead", {}, head), element("tbody", {}, body)));
}

function card(title, ...children) {
  return element("div", { class: "card" }, title ? element("h3", {}, title) : null, children);
}

function section(host, title, ...children) {
  const node = element("div", { class: "part", id: `part-${title.toLowerCase().replace(/\W+/g, "-")}` }, element("h2", {}, title), children);
  host.append(node);
  return node;
}
