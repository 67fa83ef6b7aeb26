// The first screen: what the reward says, each number a link to the rows behind it. And the charts of all rows.

const MAX_REASONS = 3;
const NOT_RUN = "not run: "; // how the reason of a score begins that a gate or the routing left out: no failure

function tile(title, value, ...more) {
  return element("section", { class: "tile" }, element("h2", {}, title), element("b", {}, value), more.map((line) => line && element("p", {}, line)));
}

function tiles(head, rows) {
  const { summary } = head;
  const all = Array.from({ length: rows.size }, (_, row) => row);
  const parts = [rewardTile(summary, rows, all), groupsTile(summary, rows), failuresTile(summary, rows, all), labelsTile(summary, rows), cutTile(rows, all), changesTile(head, rows, all), runTile(head)];
  byId("tiles").replaceChildren(...parts.filter(Boolean));
  if (summary.num_shown < summary.num_rows) {
    byId("tiles").append(element("p", { class: "muted note" }, `The page holds ${number(summary.num_shown)} of the ${number(summary.num_rows)} rollouts, whole groups chosen at random: links and charts are of those, the large numbers above of all.`));
  }
}

function counted(count, where, label) { return count ? rowsLink(where, label) : label; }

function rewardTile(summary, rows, all) {
  if (summary.mean_reward === null) return tile("Rollouts", number(summary.num_rows), "not scored");
  return tile("Mean reward", rowsLink("reward != null", number(summary.mean_reward)), facetNode(rows, "reward", all, { small: true }), `${plural(summary.num_rows, "rollout")} in ${plural(summary.num_groups, "group")}`);
}

function groupsTile(summary, rows) {
  if (summary.mean_reward === null || summary.num_groups === summary.num_rows) return null;
  const counts = new Map();
  for (let row = 0; row < rows.size; row += 1) {
    if (rows.groupStart[row] !== row || rows.get("group.spread", row) !== 0) continue;
    const mean = Number(rows.get("group.mean", row).toPrecision(6));
    counts.set(mean, (counts.get(mean) || 0) + 1);
  }
  const most = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 2);
  const lines = most.map(([mean, count]) => rowsLink(`group.spread == 0 and abs(group.mean - ${mean}) < ${Math.max(Math.abs(mean), 1) * 1e-5}`, `${number(count)} all at ${number(mean)}`));
  return tile("Groups without variance", counted(summary.num_flat, "group.spread == 0", percent(summary.num_flat, summary.num_groups)), `${number(summary.num_flat)} of ${number(summary.num_groups)} teach GRPO nothing`, ...lines);
}

function failuresTile(summary, rows, all) {
  if (!rows.components.size) return null;
  const reasons = new Map();
  for (const column of rows.components.values()) {
    const outcome = rows.reader(`${column}.outcome`) ?? (() => null);
    const reason = rows.isKnown(`${column}.reason`) ? rows.reader(`${column}.reason`) : () => undefined;
    for (const row of all) {
      if (outcome(row) === null || outcome(row) === "ok" || reason(row)?.startsWith(NOT_RUN)) continue;
      const key = JSON.stringify([column, outcome(row), ...(reason(row) === undefined ? [] : [reason(row)])]);
      reasons.set(key, (reasons.get(key) || 0) + 1);
    }
  }
  const lines = [...reasons].sort((a, b) => b[1] - a[1]).slice(0, MAX_REASONS).map(([key, count]) => {
    const [column, outcome, reason] = JSON.parse(key);
    const because = reason === null ? `${nameText(`${column}.reason`)} == null` : equals(`${column}.reason`, reason);
    const where = equals(`${column}.outcome`, outcome) + (reason === undefined ? "" : ` and ${because}`);
    return rowsLink(where, `${number(count)} ${column}: ${shortened(oneLine(reason ?? outcome), 60)}`);
  });
  const failed = Object.values(summary.failed).reduce((sum, counts) => sum + (counts.error || 0) + (counts.timeout || 0), 0);
  const abstained = Object.values(summary.failed).reduce((sum, counts) => sum + (counts.abstain || 0), 0);
  const where = (...wanted) => [...rows.components.values()].filter((column) => rows.columns.has(`${column}.outcome`)).flatMap((column) => wanted.map((outcome) => equals(`${column}.outcome`, outcome) + (outcome === "abstain" && rows.columns.has(`${column}.reason`) ? ` and not ${nameText(`${column}.reason`)} contains "${NOT_RUN}"` : ""))).join(" or ");
  return tile("Failed scores", failed ? rowsLink(where("error", "timeout"), number(failed)) : "0",
    abstained ? rowsLink(where("abstain"), `${number(abstained)} abstained`) : null, summary.num_dropped ? rowsLink("dropped != null", `${plural(summary.num_dropped, "rollout")} dropped`) : null, ...lines);
}

function labelsTile(summary, rows) {
  const counts = summary.labels[summary.primary];
  if (!counts) return null;
  const column = nameText(rows.components.get(summary.primary));
  const [acceptedWrong, rejectedRight] = [counts[1], counts[2]];
  return tile("Disagrees with the label", counted(acceptedWrong + rejectedRight, `label != null and ${column} != null and label != (${column} >= 0.5)`, number(acceptedWrong + rejectedRight)),
    counted(acceptedWrong, `label == false and ${column} >= 0.5`, plural(acceptedWrong, "false positive")), counted(rejectedRight, `label == true and ${column} < 0.5`, plural(rejectedRight, "false negative")),
    `${number(counts.reduce((a, b) => a + b))} rows judged by ${summary.primary}`);
}

function cutTile(rows, all) {
  const finish = rows.reader("finish");
  if (!finish) return null;
  const cut = all.filter((row) => LIMITS.includes(finish(row)));
  const reasons = [...new Set(cut.map(finish))];
  return cut.length ? tile("Cut at a limit", rowsLink(reasons.map((reason) => equals("finish", reason)).join(" or "), percent(cut.length, rows.size)), plural(cut.length, "rollout")) : null;
}

function changesTile(head, rows, all) {
  if (!head.diff) return null;
  const rise = all.filter((row) => rows.get("reward", row) > (rows.get("before.reward", row) ?? Infinity)).length;
  const fall = all.filter((row) => (rows.get("reward", row) ?? Infinity) < rows.get("before.reward", row)).length;
  return tile("Changed rewards", counted(head.diff.reward.num_changed, "reward != before.reward", number(head.diff.reward.num_changed)), counted(rise, "reward > before.reward", `${number(rise)} rise`), counted(fall, "reward < before.reward", `${number(fall)} fall`));
}

function runTile(head) {
  const found = beforeAndAfter(head).slice(0, 3);
  const warnings = head.runs.length ? new Set(warningsOf(head.runs[0]).map((warning) => warning.name)).size : 0;
  if (!head.runs.length) return null;
  const lines = found.map(([name, before, after]) => `${name.split("/").at(-1)}: ${number(before)} → ${number(after)}`);
  return tile("Training", element("a", { href: state.link({ view: "training" }) }, `${plural(stepsOf(head.runs[0]), "step")}`), ...lines, warnings ? plural(warnings, "kind") + " of warning" : null);
}

function charts(head, rows) {
  const host = byId("charts");
  const all = Array.from({ length: rows.size }, (_, row) => row);
  const shownColumns = ["reward", ...rows.components.values(), "advantage", "tokens", "characters", "turns", "group.spread", "finish", "label"].filter((name) => rows.columns.has(name));
  section(host, "Distributions", element("div", { class: "charts" }, shownColumns.map((name) => card(name, facetNode(rows, name, all)))));
  agreement(host, head, rows);
  relations(host, rows);
  slowest(host, rows, all);
  changes(host, head);
}

function agreement(host, head, rows) {
  const entries = Object.entries(head.summary.labels).filter(([name]) => rows.components.has(name));
  if (!entries.length) return;
  section(host, "Agreement with labels", element("div", { class: "tables" }, entries.map(([name, [tp, fp, fn, tn]]) => {
    const column = nameText(rows.components.get(name));
    const cell = (label, compare, count) => counted(count, `label == ${label} and ${column} ${compare} 0.5`, number(count));
    return card(name, table(["", "label: correct", "label: wrong"], [
      ["accepted", cell(true, ">=", tp), cell(false, ">=", fp)],
      ["rejected", cell(true, "<", fn), cell(false, "<", tn)],
    ]), element("p", { class: "muted" }, `precision ${percent(tp, tp + fp)}, recall ${percent(tp, tp + fn)}`));
  })));
}

function relations(host, rows) {
  const names = ["reward", ...rows.components.values(), "tokens", "characters"].filter((name) => rows.kind(name) === "number");
  if (names.length < 2) return;
  const cell = (a, b) => {
    const { r, meanA, meanB } = correlation(rows, a, b);
    if (r === null) return "–";
    const against = r < 0 ? "==" : "!=";
    const where = `(${nameText(a)} >= ${meanA}) ${against} (${nameText(b)} >= ${meanB}) and ${nameText(a)} != null and ${nameText(b)} != null`;
    const link = rowsLink(where, r.toFixed(2), { title: `show the rows that say the opposite: ${a} ${r < 0 ? "and" : "or"} ${b} above its mean${r < 0 ? "" : ", and not both"}` });
    link.classList.add(r > 0 ? "high" : "low");
    return link;
  };
  section(host, "Correlations", element("div", { class: "tables" }, card("", table(["", ...names], names.map((a) => [a, ...names.map((b) => (a === b ? "1" : cell(a, b)))])))));
}

function slowest(host, rows, all) {
  const timed = [...rows.components.values()].flatMap((column) => {
    const read = rows.reader(`${column}.ms`);
    return read ? all.filter((row) => read(row) > 0).map((row) => [read(row), column, row]) : [];
  }).sort((a, b) => b[0] - a[0]).slice(0, 10);
  if (!timed.length) return;
  const link = (column, row) => element("a", { href: state.link({ view: "rollouts", where: "", text: "", sort: `-${column}.ms`, row: String(row) }) }, shown(rows.get("id", row)));
  section(host, "Slowest rows", element("div", { class: "tables" }, card("", table(["row", "component", "time"], timed.map(([ms, column, row]) => [link(column, row), column, `${number(ms, 3)} ms`])))));
}

const GRPO = { // figure of the diff -> the rows behind it
  groups_changed: "group.changed == true",
  gained_all_variance: "before.group.spread == 0 and group.spread > 0",
  lost_all_variance: "before.group.spread > 0 and group.spread == 0",
  advantages_changing_sign: "before.advantage * after.advantage < 0",
  samples_newly_dropped: "before.reward != null and reward == null",
  samples_no_longer_dropped: "before.reward == null and reward != null",
  groups_with_rank_changes: "group.reordered == true",
  rank_inversions: "group.reordered == true",
  max_advantage_change: "advantage.change > 0",
};

function changes(host, head) {
  if (!head.diff) return;
  const lines = [...Object.values(head.diff.components).map((part) => [part, head.components[part.name]]), [head.diff.reward, "reward"]].map(([part, column]) => {
    if (column === undefined) return [part.name, number(part.num_changed), number(part.flips_up), number(part.flips_down), number(part.max_abs_delta)];
    const [now, before] = [nameText(column), nameText(`before.${column}`)];
    const flips = (up, count) => (part.is_verdict ? rowsLink(`${before} == ${up ? 0 : 1} and ${now} == ${up ? 1 : 0}`, number(count)) : "–");
    return [part.name, rowsLink(`${before} != ${now}`, number(part.num_changed)), flips(true, part.flips_up), flips(false, part.flips_down), number(part.max_abs_delta)];
  });
  const grpo = Object.entries(head.diff.grpo).map(([name, value]) => [name.replaceAll("_", " "), name in GRPO ? rowsLink(GRPO[name], number(value), { sort: name === "max_advantage_change" ? "-advantage.change" : "" }) : number(value)]);
  section(host, "What changes", element("div", { class: "tables" }, card("Scores", table(["component", "changed", "0 to 1", "1 to 0", "largest change"], lines)), card("What GRPO would see", table(["", ""], grpo))));
}
