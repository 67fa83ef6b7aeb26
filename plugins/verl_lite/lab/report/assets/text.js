// Texts as people read them: markdown, mathematics and code as elements, never as HTML of the text's own.
// Links and images do nothing: what a model wrote is shown, not followed.

const MAX_RENDERED = 100_000; // characters; longer texts are shown as they are
const MAX_PARAGRAPH = 10_000; // likewise: the parser's time grows with its square
const MAX_CODE = 20_000; // characters that are coloured
const MAX_TEX = 4_000;
const MAX_HITS = 500;
const ENVIRONMENTS = "align|align\\*|aligned|equation|equation\\*|gather|gather\\*|cases|array|matrix|pmatrix|bmatrix|vmatrix";
const FENCES = [ // how mathematics begins, what is in it, and whether it has a line of its own
  [/^\$\$([^$]+?)\$\$/, true],
  [/^\\\[([\s\S]+?)\\\]/, true],
  [/^\\\(([\s\S]+?)\\\)/, false],
  [new RegExp(`^(\\\\begin\\{(${ENVIRONMENTS})\\}[\\s\\S]+?\\\\end\\{\\2\\})`), true],
  [/^\$(?![\s$])((?:\\.|[^\\$\n]){0,400}?[^\\\s$])\$(?!\d)/, false],
];

// between two dollar signs that are sums of money: "400=", "5 each so he paid 500"
const MONEY = /^[\d.,].*[=+*/-]$|^[^\\]*[A-Za-z]{2,} +[A-Za-z]{2,}[^\\]*$/;

function mathAt(source) { // the mathematics that `source` begins with
  for (const [pattern, display] of FENCES) {
    const found = pattern.exec(source);
    if (found && (source.startsWith("$$") || source[0] !== "$" || !MONEY.test(found[1]))) return { type: "math", raw: found[0], tex: found[1], display };
  }
  return source.startsWith("\\boxed{") && source[7] !== "}" ? boxedAt(source) : undefined;
}

function boxedAt(source) {
  let depth = 0;
  for (let at = 6; at < Math.min(source.length, MAX_TEX); at += 1) {
    if (source[at] === "\\") at += 1;
    else if (source[at] === "{") depth += 1;
    else if (source[at] === "}" && (depth -= 1) === 0) return { type: "math", raw: source.slice(0, at + 1), tex: source.slice(0, at + 1), display: false };
  }
  return undefined;
}

const markdown = new marked.Marked({ gfm: true, breaks: true });
markdown.use({
  tokenizer: { // 16*7=112 and ~5 are arithmetic; undefined leaves the sign as it is, false the rest to the library
    emStrong: (source, _, before) => (/[\w)\]]/.test(before ?? "") ? undefined : false),
    del: (source) => (source.startsWith("~~") ? false : undefined),
  },
  extensions: [
    { name: "displayed", level: "block", tokenizer: (source) => { const found = mathAt(source); return found?.display ? found : undefined; } },
    { name: "math", level: "inline", start: (source) => { const at = source.search(/\$|\\[[(]|\\begin\{|\\boxed\{/); return at < 0 ? undefined : at; }, tokenizer: mathAt },
  ],
});

function mathNode(tex, display) {
  const host = element(display ? "div" : "span", { class: "math" });
  try {
    if (tex.length > MAX_TEX) throw new RangeError("long");
    temml.render(tex, host, { displayMode: display, throwOnError: true, trust: false, maxExpand: 500, maxSize: [20, 20] });
    for (const node of host.querySelectorAll("*")) for (const name of ["id", "href", "src"]) node.removeAttribute(name);
  } catch {
    host.replaceChildren(element("code", { title: "not mathematics that can be set" }, tex));
  }
  return host;
}

function codeNode(text, language) {
  const known = { py: "python", js: "javascript", sh: "bash", shell: "bash", "c++": "cpp" };
  const name = language.trim().split(/\s/)[0].toLowerCase();
  const grammar = Object.hasOwn(Prism.languages, known[name] ?? name) ? Prism.languages[known[name] ?? name] : null;
  const tokens = grammar && typeof grammar === "object" && text.length <= MAX_CODE ? Prism.tokenize(text, grammar) : [text];
  const nodeOf = (token) => (typeof token === "string" ? token : element("span", { class: `code-${String(token.type)}` }, [token.content].flat(9).map(nodeOf)));
  return element("pre", { class: "code", tabindex: "0" }, element("code", {}, tokens.map(nodeOf)));
}

const INLINE = { strong: "strong", em: "em", del: "del", paragraph: "p", blockquote: "blockquote" };

const MARKDOWN = { // kind of token -> its node
  space: () => null,
  def: (token) => token.raw,
  hr: () => element("hr"),
  br: () => element("br"),
  math: (token) => mathNode(token.tex, token.display),
  heading: (token) => element("p", { class: `heading h${token.depth}`, role: "heading", "aria-level": String(Math.min(token.depth + 3, 6)) }, nodesOf(token.tokens)),
  code: (token) => codeNode(token.text, token.lang || ""),
  codespan: (token) => element("code", {}, token.text),
  link: (token) => element("span", { class: "link", title: token.href }, nodesOf(token.tokens)),
  image: (token) => element("span", { class: "link", title: token.href }, `[image: ${token.text || token.href}]`),
  list: (token) => element(token.ordered ? "ol" : "ul", { start: token.ordered && token.start !== 1 ? String(token.start) : null }, token.items.map(itemNode)),
  table: (token) => tableNode(token),
};

function itemNode(item) {
  return element("li", {}, item.task ? (item.checked ? "☑ " : "☐ ") : null, nodesOf(item.tokens.filter((token) => token.type !== "checkbox")));
}

function tableNode(token) {
  const line = (cells, tag) => element("tr", {}, cells.map((cell) => element(tag, {}, nodesOf(cell.tokens))));
  return element("div", { class: "scroll" }, element("table", { class: "given" }, line(token.header, "th"), token.rows.map((row) => line(row, "td"))));
}

function nodesOf(tokens) {
  return (tokens || []).map((token) => {
    if (Object.hasOwn(MARKDOWN, token.type)) return MARKDOWN[token.type](token);
    if (Object.hasOwn(INLINE, token.type)) return element(INLINE[token.type], {}, nodesOf(token.tokens));
    return token.type === "text" && token.tokens ? nodesOf(token.tokens) : token.text ?? token.raw;
  }).flat();
}

function thoughts(text) { // [[is it thinking, text]]
  const parts = [];
  const close = text.indexOf("</think>");
  const open = text.indexOf("<think>");
  if (close >= 0 && (open < 0 || close < open)) { // the prompt opened it
    parts.push([true, text.slice(0, close)]);
    text = text.slice(close + 8);
  }
  for (const [index, part] of text.split("<think>").entries()) {
    const [inside, ...after] = index ? part.split("</think>") : [""];
    if (index) parts.push([true, inside]);
    parts.push([false, index ? after.join("</think>") : part]);
  }
  return parts.filter(([, part]) => part.trim());
}

function renderedNode(text) {
  const node = element("div", { class: "rendered" });
  if (text.length > MAX_RENDERED || text.split(/\n\s*\n/).some((part) => part.length > MAX_PARAGRAPH)) {
    node.append(element("p", { class: "muted" }, `${plural(text.length, "character")}, too many in one go: shown as they are`), plainNode(text));
    return node;
  }
  try {
    for (const [thinking, part] of thoughts(text)) {
      const nodes = nodesOf(markdown.lexer(part)).filter((child) => child !== null);
      node.append(thinking ? element("details", { class: "thinking", open: true }, element("summary", {}, "thinking"), nodes) : element("div", {}, nodes));
    }
  } catch { // nested deeper than the parser goes, say
    node.replaceChildren(plainNode(text));
  }
  return node;
}

// spans: [{ start, end, value }] in code points, drawn from red to green over the text as it is
function plainNode(text, spans = []) {
  const node = element("pre", { class: "plain" });
  if (!spans.length) {
    node.append(text);
    return node;
  }
  const place = positions(text);
  const heat = heatScale(spans.map((span) => span.value));
  let end = 0;
  for (const span of [...spans].sort((a, b) => a.start - b.start)) {
    const [from, to] = [Math.max(place(span.start), end), place(span.end)];
    if (from >= to) continue;
    const mark = element("span", { class: "heat", title: `${span.name ?? "value"}: ${number(span.value)}` }, text.slice(from, to));
    heat(mark, span.value);
    node.append(text.slice(end, from), mark);
    end = to;
  }
  node.append(text.slice(end));
  return node;
}

function positions(text) { // code points -> places in a text of JavaScript
  if (!/[\ud800-\udbff]/.test(text)) return (at) => Math.min(at, text.length);
  const starts = [];
  for (let at = 0; at < text.length; at += text.codePointAt(at) > 0xffff ? 2 : 1) starts.push(at);
  return (at) => starts[at] ?? text.length;
}

function heatScale(values) {
  const most = values.reduce((found, value) => Math.max(found, Math.abs(value)), 0) || 1;
  return (node, value) => {
    node.classList.add(value < 0 ? "low" : "high");
    node.style.setProperty("--heat", `${Math.round((Math.abs(value) / most) * 60)}%`);
  };
}

function legend(values) {
  const ends = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
  const heat = heatScale(values);
  const marks = [...new Set(ends)].map((value) => { const mark = element("span", { class: "heat" }, number(value)); heat(mark, value); return mark; });
  return element("span", { class: "legend" }, marks);
}

// marks every hit of `wanted` (or only the last one) in the text nodes below `root`
function markHits(root, wanted, name, { last = false } = {}) {
  if (!wanted) return;
  const text = wanted.toLowerCase();
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  const hits = [];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (node.parentElement.namespaceURI !== root.namespaceURI) continue; // not inside of mathematics
    const lower = node.data.toLowerCase();
    if (lower.length !== node.data.length) continue;
    for (let at = lower.indexOf(text); at >= 0 && hits.length < MAX_HITS; at = lower.indexOf(text, at + text.length)) hits.push([node, at]);
  }
  for (const [node, at] of (last ? hits.slice(-1) : hits).reverse()) { // the last ones first: places before them stay
    const range = document.createRange();
    range.setStart(node, at);
    range.setEnd(node, at + text.length);
    range.surroundContents(element("mark", { class: name }));
  }
}
