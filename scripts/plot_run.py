"""Draws curves of a run folder as one SVG, for the docs.

    python scripts/plot_run.py runs/rm -o docs/reward-model.svg \\
        "loss: train/loss held_out/loss" "accuracy: train/accuracy held_out/accuracy" calibration

A panel is a title and the metrics to draw, from sft.jsonl or metrics.jsonl; `calibration` is the
reliability diagram of calibration.json. In place of a run, a JSON file of curves by name, each a list of
[step, value] (benchmarks/learning_signals.py). A metric with fewer than 30 values is drawn with points.
"""

import argparse
import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, TOP, PLOT = 300, 250, 44, 30, (240, 170)
POINTS_ONLY = "right pairs"
COLOURS = ("#2563c9", "#c2571a", "#1a7f45", "#8b3fb5")
Points = list[tuple[float, float]]


def series(run: Path, name: str) -> Points:
    if run.is_file():
        return [(float(step), float(value)) for step, value in json.loads(run.read_text())[name]]
    found: Points = []
    for file in ("sft.jsonl", "metrics.jsonl"):
        if (run / file).is_file():
            rows = map(json.loads, (run / file).read_text(encoding="utf-8").splitlines())
            found += [(float(row["step"]), float(row[name])) for row in rows if row.get(name) is not None]
    if not found:
        raise SystemExit(f"{run} has no metric {name}")
    return found


def ticks(low: float, high: float) -> list[float]:
    """At most six round numbers."""
    power = 10 ** math.floor(math.log10(high - low))
    step = next(part * power for part in (0.2, 0.25, 0.5, 1, 2) if (high - low) / (part * power) <= 5.5)
    return [step * n for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def panel(title: str, curves: Sequence[tuple[str, Points]], x_label: str, *, limits: Points) -> list[str]:
    """`limits`: [(x from, y from), (x to, y to)]."""
    (x_low, y_low), (x_high, y_high) = limits
    width, height = PLOT

    def x(value: float) -> float:
        return LEFT + (value - x_low) / (x_high - x_low) * width

    def y(value: float) -> float:
        return TOP + (1 - (value - y_low) / (y_high - y_low)) * height

    lines = [f'<text x="{LEFT}" y="16" font-weight="bold">{escape(title)}</text>']
    for tick in ticks(y_low, y_high):
        lines.append(
            f'<line x1="{LEFT}" x2="{LEFT + width}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#ddd"/>'
            f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for tick in ticks(x_low, x_high):
        lines.append(f'<text x="{x(tick):.1f}" y="{TOP + height + 15}" text-anchor="middle">{tick:g}</text>')
    for at, (name, points) in enumerate(curves):
        colour = COLOURS[at % len(COLOURS)]
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
        if not name.endswith(POINTS_ONLY):
            lines.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.6" points="{path}"/>')
        if 2 < len(points) < 30:
            lines += [f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="2.5" fill="{colour}"/>' for a, b in points]
        place = f'x="{LEFT + at * width // max(len(curves), 2)}" y="{HEIGHT - 6}"'
        lines.append(f'<text {place} fill="{colour}">{escape(name)}</text>')
    place = f'x="{LEFT + width / 2}" y="{TOP + height + 29}" text-anchor="middle"'
    lines.append(f"<text {place}>{escape(x_label)}</text>")
    return lines


def curve_panel(run: Path, text: str) -> list[str]:
    title, _, names = text.partition(":")
    curves = [(name, series(run, name)) for name in names.split()]
    points = [point for _, curve in curves for point in curve]
    top = max(value for _, value in points)
    steps = [step for step, _ in points]
    return panel(title, curves, "step", limits=[(min(steps), 0.0), (max(steps), top * 1.05)])


def calibration_panel(run: Path) -> list[str]:
    bins = json.loads((run / "calibration.json").read_text(encoding="utf-8"))
    said = [(one["mean_score"], one["share"]) for one in bins]
    curves = [("share of right pairs", said), ("as often as it says", [(0.5, 0.5), (1.0, 1.0)])]
    return panel("calibration", curves, "probability given", limits=[(0.5, 0.0), (1.0, 1.05)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("panels", nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    width = WIDTH * len(options.panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for at, text in enumerate(options.panels):
        drawn = calibration_panel(options.run) if text == "calibration" else curve_panel(options.run, text)
        parts += [f'<g transform="translate({at * WIDTH} 0)">', *drawn, "</g>"]
    options.output.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
