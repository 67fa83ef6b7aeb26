// Curves over steps (uPlot) and calibration (SVG). Colours come from the style sheet, so a theme switch redraws.

function colour(index) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--s${index % 8}`).trim();
}

function ink(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

const drawn = []; // { host, draw } of every curve

function addCurve(host, title, series, warnings) {
  const holder = card(title);
  const place = element("div");
  holder.append(place);
  host.append(holder);
  const entry = { host: place, draw: () => drawCurve(place, series, warnings) };
  drawn.push(entry);
  entry.draw();
}

// series: [{ name, steps, values }]; their steps are joined, a missing value is a gap
function joined(series) {
  const steps = [...new Set(series.flatMap((one) => one.steps))].sort((a, b) => a - b);
  const place = new Map(steps.map((step, index) => [step, index]));
  const columns = series.map((one) => {
    const column = new Array(steps.length).fill(null);
    one.steps.forEach((step, index) => { column[place.get(step)] = one.values[index]; });
    return column;
  });
  return [steps, ...columns];
}

function warningLines(warnings) {
  return (plot) => {
    const context = plot.ctx;
    context.save();
    context.strokeStyle = ink("--warn");
    context.setLineDash([3, 3]);
    for (const { step } of warnings) {
      const x = Math.round(plot.valToPos(step, "x", true));
      if (x < plot.bbox.left || x > plot.bbox.left + plot.bbox.width) continue;
      context.beginPath();
      context.moveTo(x, plot.bbox.top);
      context.lineTo(x, plot.bbox.top + plot.bbox.height);
      context.stroke();
    }
    context.restore();
  };
}

// the legend shows the newest values while the cursor is elsewhere
function showLast(plot) {
  if (plot.cursor.idx !== null && plot.cursor.idx !== undefined) return;
  plot.setLegend({ idxs: plot.data.map((values) => values.findLastIndex((value) => value !== null)) });
}

// equal values are drawn in the middle; all zeros at the bottom
function spread(plot, low, high) {
  if (low === null || high === null) return [0, 1];
  if (low !== high) return uPlot.rangeNum(low, high, 0.1, true);
  return low === 0 ? [0, 1] : [low - Math.abs(low) / 2, high + Math.abs(high) / 2];
}

function drawCurve(place, series, warnings) {
  place.replaceChildren();
  const axis = () => ({ stroke: ink("--muted"), grid: { stroke: ink("--line"), width: 1 }, ticks: { stroke: ink("--line") } });
  const options = {
    width: Math.max(place.clientWidth, 240),
    height: 190,
    scales: { x: { time: false }, y: { range: spread } },
    axes: [{ ...axis(), size: 34 }, { ...axis(), size: 64, values: (_, ticks) => ticks.map((tick) => number(tick, 3)) }],
    series: [
      { label: "step" },
      ...series.map((one, index) => ({
        label: one.name,
        stroke: colour(index),
        width: 1.6,
        spanGaps: true,
        points: { show: one.steps.length < 3 },
        value: (_, value) => number(value),
      })),
    ],
    legend: { live: true },
    cursor: { points: { size: 6 } },
    hooks: { draw: warnings.length ? [warningLines(warnings)] : [], setCursor: [showLast] },
  };
  new uPlot(options, joined(series), place);
}

function redrawCurves() {
  drawn.forEach((entry) => entry.draw());
}

// bins: [{ mean_score, share, count }], confidences from 0.5 to 1
function reliabilityChart(bins) {
  const [left, top, size] = [40, 8, 190];
  const chart = svg("svg", { class: "reliability", viewBox: `0 0 ${left + size + 16} ${top + size + 36}`, role: "img" });
  const x = (confidence) => left + (confidence - 0.5) * 2 * size;
  const y = (share) => top + (1 - share) * size;
  for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
    chart.append(svg("line", { x1: left, x2: left + size, y1: y(tick), y2: y(tick) }));
    chart.append(svg("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, tick));
  }
  for (const tick of [0.5, 0.75, 1]) chart.append(svg("text", { x: x(tick), y: top + size + 15, "text-anchor": "middle" }, tick));
  chart.append(svg("line", { class: "even", x1: x(0.5), y1: y(0.5), x2: x(1), y2: y(1) }));
  const most = Math.max(...bins.map((bin) => bin.count));
  for (const bin of bins) {
    const point = svg("circle", { cx: x(bin.mean_score), cy: y(bin.share), r: 2.5 + 7 * Math.sqrt(bin.count / most) });
    point.append(svg("title", {}, `says ${number(bin.mean_score)}, is right in ${number(bin.share)} of ${number(bin.count)}`));
    chart.append(point);
  }
  chart.append(svg("text", { x: left + size / 2, y: top + size + 30, "text-anchor": "middle" }, "probability given"));
  return chart;
}
