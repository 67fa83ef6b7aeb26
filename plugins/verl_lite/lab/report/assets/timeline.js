// Who worked when: one lane per worker, one colour per stage. Names only ever become text nodes.

function timelineChart(bars) {
  const workers = [...new Set(bars.map((bar) => bar[0]))];
  const stages = [...new Set(bars.map((bar) => bar[1]))];
  const [left, lane, width, top] = [150, 22, 1100, 18];
  const start = Math.min(...bars.map((bar) => bar[2]));
  const span = Math.max(...bars.map((bar) => bar[3])) - start || 1;
  const height = top + workers.length * lane + 20;
  const x = (seconds) => left + ((seconds - start) / span) * (width - left - 32);
  const chart = svg("svg", { class: "timeline", viewBox: `0 0 ${width} ${height}`, role: "img" });
  workers.forEach((worker, row) => {
    const label = svg("text", { x: left - 8, y: top + row * lane + 14, "text-anchor": "end" }, shortened(worker, 22));
    label.append(svg("title", {}, worker));
    chart.append(label, svg("line", { x1: left, x2: width - 32, y1: top + (row + 1) * lane - 1, y2: top + (row + 1) * lane - 1 }));
  });
  for (const [worker, stage, from, to, step] of bars) {
    const bar = svg("rect", { x: x(from), y: top + workers.indexOf(worker) * lane + 3, width: Math.max(x(to) - x(from), 0.7), height: lane - 6 });
    bar.style.fill = stage.startsWith("wait_") ? "var(--line)" : `var(--s${stages.indexOf(stage) % 8})`;
    bar.append(svg("title", {}, `${worker}: ${stage}, step ${step}, ${number(to - from, 3)} s`));
    chart.append(bar);
  }
  for (let tick = 0; tick <= 5; tick += 1) {
    const seconds = start + (span * tick) / 5;
    chart.append(svg("text", { x: x(seconds), y: height - 5, "text-anchor": "middle" }, `${number(seconds, 4)} s`));
  }
  return element("div", {}, stageLegend(stages), element("div", { class: "scroll" }, chart));
}

function stageLegend(stages) {
  return element("p", { class: "legend" }, ...stages.map((stage, index) => {
    const patch = element("i");
    patch.style.background = stage.startsWith("wait_") ? "var(--line)" : `var(--s${index % 8})`;
    return element("span", {}, patch, stage);
  }));
}

function waitingTable(workers) {
  const share = ([name, part]) => `${name} ${(100 * part).toFixed(1)}%`;
  const some = (parts) => parts.filter((part) => part[1] >= 0.0005).slice(0, 6).map(share).join(", ") || "–";
  const rows = workers.map((row) => [row.worker, some(row.stages), `${(100 * row.waited).toFixed(1)}%`, some(row.for)]);
  return table(["worker", "worked", "waited", "while others were in"], rows);
}

function timelines(host, head) {
  const runs = head.runs.filter((run) => run.timeline);
  if (!runs.length) return;
  const part = section(host, "Who waited for whom");
  part.id = "timeline";
  for (const run of runs) {
    const steps = run.timeline.bars.map((bar) => bar[4]);
    part.append(card(`${run.name}: steps ${Math.min(...steps)} to ${Math.max(...steps)}`, timelineChart(run.timeline.bars)), card("Shares of the whole time", waitingTable(run.timeline.workers)));
  }
}
