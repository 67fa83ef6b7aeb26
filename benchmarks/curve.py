"""Draw metrics of finished runs, by step, as one SVG: the curves in README.md and docs/.

python benchmarks/curve.py runs/smollm2 -m reward/correct/mean -m reward/format/mean -o docs/smollm2.svg
"""

import argparse
from pathlib import Path

from verl_lite.engine.observe import read_metrics

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 260, 44, 34, 12
COLOURS = ("#1a6fd4", "#c2571a", "#2a8f4d", "#8a4fc4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("-m", "--metric", action="append", required=True, help="a metric between 0 and 1")
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    curves = {}
    for run in given.runs:
        rows = read_metrics(run / "metrics.jsonl")
        for metric in given.metric:
            name = metric if len(given.runs) == 1 else f"{run.name}: {metric}"
            curves[name] = [(row["step"], row[metric]) for row in rows if metric in row]
    given.out.write_text(svg(curves))


def svg(curves: dict[str, list[tuple[int, float]]]) -> str:
    """One line per curve, over steps; values are between 0 and 1."""
    last = max(step for points in curves.values() for step, _ in points)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - 14) * (step - 1) / max(last - 1, 1)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12" fill="#444"><rect width="100%" height="100%" fill="#fff"/>'
    ]
    for value in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<path d="M{LEFT} {y(value):.1f}H{WIDTH - 14}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.0%}</text>')
    for step in range(1, last + 1, max(last // 8, 1)):
        parts.append(f'<text x="{x(step):.1f}" y="{HEIGHT - 16}" text-anchor="middle">{step}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 2}" text-anchor="middle">step</text>')
    for index, (name, points) in enumerate(curves.items()):
        colour = COLOURS[index % len(COLOURS)]
        line = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{LEFT + 10}" y="{TOP + 16 + 16 * index}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    main()
