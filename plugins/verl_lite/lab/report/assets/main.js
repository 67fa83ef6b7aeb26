// Puts the page together: the browser of rollouts first, the other views when they are opened.

const KEYS = [
  ["j k ↓ ↑", "next or previous row"], ["h l ← →", "previous or next sample of the group"], ["g", "the group's samples side by side"],
  ["r t v", "texts rendered, as they are, or values per token"], ["/", "search"], ["f", "filter"], ["c", "columns"], ["x", "export the rows shown"], ["Esc", "back to the rows"], ["?", "this help"],
];

const FILTERS = [
  ["reward < 0.5 and finish == \"length\"", "columns, numbers, texts in quotes; and, or, not, brackets"],
  ["completion contains \"wait\"", "a part of a text, in any case of the letters"],
  ["correct.reason matches \"line \\d+\"", "a regular expression"],
  ["label != (correct >= 0.5)", "comparisons are values too; one with a missing value is false"],
  ["dropped != null", "a value is there"],
  ["length(completion) > 2 * characters / 3", "length, words, abs, round; + - * / %"],
  ["`odd name` == 1", "names with other signs stand in backquotes"],
];

function views(head, rows) { // name -> [title, what fills it, once]
  const found = new Map();
  if (rows.size) found.set("rollouts", ["Rollouts", () => {}]);
  if (rows.columns.has("reward") || head.diff) found.set("charts", ["Charts", () => charts(head, rows)]);
  if (head.runs.length || head.evaluations.length) found.set("training", [head.runs.length ? "Training" : "Evaluation", () => training(head, rows)]);
  if (head.runs.some((run) => run.config || run.environment)) found.set("setup", ["Setup", () => setup(head)]);
  return found;
}

function showViews(found) {
  const filled = new Set();
  const show = () => {
    const name = found.has(state.current.view) ? state.current.view : [...found.keys()][0];
    for (const node of document.querySelectorAll("main > section")) node.hidden = node.id !== name;
    byId("views").replaceChildren(...[...found].map(([one, [title]]) => element("a", { href: state.link({ view: one }), "aria-current": one === name ? "page" : null }, title)));
    document.body.dataset.view = name ?? "";
    if (name && !filled.has(name)) {
      filled.add(name);
      found.get(name)[1]();
    }
  };
  state.onChange(show);
  show();
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  redrawCurves();
}

function themes() {
  const wish = window.matchMedia("(prefers-color-scheme: dark)");
  const follow = () => setTheme(wish.matches ? "dark" : "light");
  follow();
  wish.addEventListener("change", follow);
  byId("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  let pending = 0;
  window.addEventListener("resize", () => { clearTimeout(pending); pending = setTimeout(redrawCurves, 150); });
}

function help() {
  const dialog = byId("help");
  const lines = (pairs) => element("dl", {}, pairs.flatMap(([term, meaning]) => [element("dt", {}, element("code", {}, term)), element("dd", {}, meaning)]));
  dialog.append(element("h2", {}, "Keys"), lines(KEYS), element("h2", {}, "Filters"), lines(FILTERS), element("form", { method: "dialog" }, element("button", {}, "Close")));
  byId("help-button").addEventListener("click", () => dialog.showModal());
}

function keys(browser) {
  const actions = {
    j: () => browser.move(1), ArrowDown: () => browser.move(1), k: () => browser.move(-1), ArrowUp: () => browser.move(-1),
    PageDown: () => browser.move(10), PageUp: () => browser.move(-10), Home: () => browser.move(-Infinity), End: () => browser.move(Infinity),
    l: () => browser.sibling(1), ArrowRight: () => browser.sibling(1), h: () => browser.sibling(-1), ArrowLeft: () => browser.sibling(-1),
    g: () => state.go({ pane: state.current.pane === "group" ? "row" : "group" }), r: () => state.go({ show: "rendered" }), t: () => state.go({ show: "text" }), v: () => state.go({ show: "tokens" }),
    "/": () => byId("f-text").focus(), f: () => byId("f-where").focus(), c: () => browser.togglePanel(), x: () => browser.save(),
    Enter: () => { document.body.classList.add("reading"); byId("detail").focus(); },
    Escape: () => { document.body.classList.remove("reading"); byId("list").focus(); }, "?": () => byId("help").showModal(),
  };
  const onlyInList = new Set(["ArrowDown", "ArrowUp", "ArrowLeft", "ArrowRight", "PageDown", "PageUp", "Home", "End", "Enter"]);
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea, dialog");
    if (event.key === "Escape" && typing && !byId("help").open) { byId("list").focus(); return; }
    if (typing || event.ctrlKey || event.metaKey || event.altKey || document.body.dataset.view !== "rollouts") return;
    if (!Object.hasOwn(actions, event.key) || (onlyInList.has(event.key) && event.target !== byId("list"))) return;
    event.preventDefault();
    actions[event.key]();
  });
}

async function main() {
  themes();
  help();
  const head = await unpack(byId("head"));
  const rows = new Rows(head, document.querySelectorAll("script.block"));
  const found = views(head, rows);
  let browser = null;
  if (rows.size) {
    tiles(head, rows);
    browser = new Browser(rows, head);
    keys(browser);
  }
  showViews(found);
  if (browser) await browser.start();
  byId("loading").remove();
  window.report = { head, rows, browser, state, parseExpression, histogram, correlation }; // for the console and the tests
  performance.mark("ready");
  document.body.dataset.ready = "yes";
  await rows.loadAll();
  if (rows.size && [...rows.components.values()].some((column) => rows.kind(`${column}.reason`) === "long")) tiles(head, rows); // with the reasons
}

main().catch((error) => {
  byId("loading").textContent = `The report cannot be shown: ${error.message}. It needs a browser from 2023 or newer.`;
  throw error;
});
