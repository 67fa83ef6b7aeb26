"""A data report as one HTML page: a table of findings and a plot of the lengths (SVG)."""

import html
from collections.abc import Sequence

from verl_lite.engine.data.quality import DataReport

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 720, 260, 56, 40, 12
TICKS = 4
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 760px; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; width: 100%; }}
td, th {{ text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8884; }}
td:nth-child(2) {{ white-space: nowrap; }}
svg {{ width: 100%; height: auto; }}
svg text {{ font: 11px system-ui, sans-serif; fill: currentColor; }}
.bar {{ fill: #4a7fb5; }} .grid {{ stroke: #8884; }} .limit {{ stroke: #c0392b; stroke-dasharray: 4 3; }}
</style></head><body><h1>{title}</h1>
<table><tr><th></th><th>rows</th><th>the first</th></tr>{rows}</table>
<h2>Lengths</h2>{plot}</body></html>
"""


def data_page(
    report: DataReport, table: Sequence[Sequence[str]], *, title: str, unit: str, limit: int | None = None
) -> str:
    """The page; `table` has one row (name, share, first rows) per finding."""
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table
    )
    plot = length_plot(report.histogram, unit=unit, limit=limit)
    return PAGE.format(title=html.escape(title), rows=rows, plot=plot)


def length_plot(histogram: Sequence[tuple[int, int, int]], *, unit: str, limit: int | None = None) -> str:
    """Bars of (from, to, rows) as SVG, with a line at `limit` if it lies within them."""
    if not histogram:
        return "<p>no rows</p>"
    low, high = histogram[0][0], histogram[-1][1] + 1
    most = max(count for _, _, count in histogram)

    def x(length: float) -> float:
        return LEFT + (length - low) / (high - low) * (WIDTH - LEFT - 10)

    def y(count: float) -> float:
        return TOP + (1 - count / most) * (HEIGHT - TOP - BOTTOM)

    floor, parts = y(0), []
    for count in sorted({round(most * tick / TICKS) for tick in range(TICKS + 1)}):
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 10}" y1="{y(count):.1f}" y2="{y(count):.1f}"/>'
        )
        parts.append(f'<text x="{LEFT - 6}" y="{y(count) + 4:.1f}" text-anchor="end">{count:,}</text>')
    for first, last, count in histogram:
        left, right = x(first), x(last + 1)
        parts.append(
            f'<rect class="bar" x="{left + 1:.1f}" y="{y(count):.1f}" width="{max(right - left - 2, 1):.1f}" '
            f'height="{floor - y(count):.1f}"><title>{first} to {last}: {count:,} rows</title></rect>'
        )
        parts.append(f'<text x="{left + 1:.1f}" y="{floor + 15:.1f}">{first}</text>')
    if limit is not None and low <= limit < high:
        edge = x(limit + 1)
        parts.append(f'<line class="limit" x1="{edge:.1f}" x2="{edge:.1f}" y1="{TOP}" y2="{floor:.1f}"/>')
    middle = (LEFT + WIDTH) / 2
    parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - 6}" text-anchor="middle">length in {unit}</text>')
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="lengths">{"".join(parts)}</svg>'
