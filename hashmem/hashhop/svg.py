"""Small charts of shares as inline SVG, for a page without scripts.

Every function returns one ``<svg>`` element whose text is escaped, and the same one for the same
input. Colours are those of Okabe and Ito, which all kinds of colour vision tell apart; axes and
letters take the page's colour, so that a dark page works too.
"""

import html
import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

WIDTH = 760  # user units, which are CSS pixels where there is room
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c")
DASHES = ("", "6 3", "2 3", "8 3 2 3")  # the second set of colours is dashed, and so on
_LETTER = 6.4  # width of a letter, about
_LABEL = 38  # letters of a label at most
_ROW = 24
# Control characters, and those that turn the direction of what follows.
_UNSHOWN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Point(NamedTuple):
    """A share, with its interval, at a place on the axis."""

    x: float
    share: float
    low: float
    high: float


def escape(value: object, most: int = 300) -> str:
    """Return `value` as HTML text, cut after `most` letters, without what cannot be shown."""
    text = str(value)
    text = text if len(text) <= most else text[: most - 1] + "…"
    return html.escape(_UNSHOWN.sub("\ufffd", text))


def percent(share: float | None) -> str:
    """Return a share as the page shows it; a share of nothing is a dash."""
    return "–" if share is None or math.isnan(share) else f"{100 * share:.1f} %"


def interval_chart(label: str, rows: Sequence[tuple[str, Point | None]]) -> str:
    """Draw a share and its interval for each row; None: there is none. `x` is not read."""
    left = _margin(name for name, _ in rows)
    right, top = WIDTH - 20, 8
    bottom = top + _ROW * len(rows)
    parts = []
    for step in range(5):
        x = left + (right - left) * step / 4
        parts += [_line(x, top, x, bottom, "grid"), _text(x, bottom + 16, f"{25 * step} %")]
    for i, (name, point) in enumerate(rows):
        y = top + _ROW * (i + 0.5)
        parts.append(_text(left - 8, y + 4, name, "end"))
        if point is not None:
            x, a, b = (left + (right - left) * s for s in (point.share, point.low, point.high))
            parts.append(_line(a, y, b, y, "", f'stroke="{COLORS[0]}" stroke-width="2"'))
            parts.append(_dot(x, y, 0, f"{name}: {percent(point.share)}"))
    return _svg(label, bottom + 24, parts)


def line_chart(
    label: str, axis: str, series: Sequence[tuple[str, Sequence[Point]]], *, log: bool = False
) -> str:
    """Draw curves of shares over `axis`, through the means where several points share a place."""
    left, right, top, bottom = 60, WIDTH - 20, 12, 272
    places = sorted({point.x for _, points in series for point in points})

    def scale(x: float) -> float:
        return math.log(max(x, 1)) if log else x

    first, last = (scale(places[0]), scale(places[-1])) if places else (0.0, 0.0)

    def at(x: float) -> float:
        share = (scale(x) - first) / (last - first) if last > first else 0.5
        return left + 20 + (right - left - 40) * share

    def up(share: float) -> float:
        return bottom - (bottom - top) * share

    parts = []
    for step in range(5):
        y = up(step / 4)
        parts += [_line(left, y, right, y, "grid")]
        parts += [_text(left - 8, y + 4, f"{25 * step} %", "end")]
    free = -math.inf
    for x in places:
        name = _short(x)
        if at(x) - len(name) * _LETTER / 2 > free:
            parts.append(_text(at(x), bottom + 18, name))
            free = at(x) + len(name) * _LETTER / 2 + 8
    parts.append(_text((left + right) / 2, bottom + 38, axis))
    for i, (name, points) in enumerate(series):
        style = _stroke(i)
        # Aside of each other, so that one interval does not cover the next.
        aside = min(4, 40 / len(series)) * (i - (len(series) - 1) / 2)
        means = {p.x: [q.share for q in points if q.x == p.x] for p in points}
        way = " ".join(
            f"{at(x) + aside:.1f},{up(sum(shares) / len(shares)):.1f}"
            for x, shares in sorted(means.items())
        )
        parts.append(f'<polyline points="{way}" fill="none" {style}/>')
        for p in points:
            x, title = at(p.x) + aside, f"{name}, {_short(p.x)}: {percent(p.share)}"
            parts.append(_line(x, up(p.low), x, up(p.high), "", _stroke(i, "1")))
            parts.append(_dot(x, up(p.share), i, title))
        y = bottom + 62 + 18 * i
        parts.append(_line(left, y - 4, left + 28, y - 4, "", style))
        parts.append(_text(left + 36, y, name, "start", most=100))
    return _svg(label, bottom + 56 + 18 * len(series), parts)


def bar_chart(
    label: str, kinds: Sequence[str], rows: Sequence[tuple[str, Sequence[int], str]]
) -> str:
    """Draw counts by kind end to end for each row (name, counts, note), as shares of their sum."""
    left = _margin(name for name, _, _ in rows)
    right, top = WIDTH - 150, 8
    parts = []
    for i, (name, counts, note) in enumerate(rows):
        y = top + _ROW * i
        parts.append(_text(left - 8, y + 16, name, "end"))
        x = float(left)
        for j, (kind, count) in enumerate(zip(kinds, counts, strict=True)):
            wide = (right - left) * count / max(sum(counts), 1)
            parts.append(
                f'<rect x="{x:.1f}" y="{y + 3}" width="{wide:.1f}" height="{_ROW - 6}" '
                f'fill="{COLORS[j % len(COLORS)]}" opacity="{_shade(j)}">'
                f"<title>{escape(f'{name}: {count} {kind}')}</title></rect>"
            )
            x += wide
        parts.append(_text(right + 8, y + 16, note, "start"))
    y, x = top + _ROW * len(rows) + 20, float(left)
    for j, kind in enumerate(kinds):
        wide = len(kind) * _LETTER + 34
        if x + wide > WIDTH:
            x, y = float(left), y + 18
        parts.append(
            f'<rect x="{x:.1f}" y="{y - 10}" width="12" height="12" '
            f'fill="{COLORS[j % len(COLORS)]}" opacity="{_shade(j)}"/>'
        )
        parts.append(_text(x + 18, y, kind, "start"))
        x += wide
    return _svg(label, y + 12, parts)


def heat_chart(
    label: str,
    axes: tuple[str, str],
    names: tuple[Sequence[str], Sequence[str]],
    cells: Sequence[Sequence[tuple[int, int]]],
) -> str:
    """Draw the share of each cell (hits, counts) of rows × columns; nothing where counts are 0.

    `axes` and `names` are those of the rows, then of the columns; where there is a column name
    more than columns, they stand at the borders between columns.
    """
    left = _margin(names[0]) + 20
    columns = max(len(cells[0]) if cells else 0, 1)
    wide, top = (WIDTH - 20 - left) / columns, 26
    parts = [_text(left - 8, 16, axes[0], "end", most=60)]
    for i, row in enumerate(cells):
        y = top + _ROW * i
        parts.append(_text(left - 8, y + 16, names[0][i], "end"))
        for j, (hits, count) in enumerate(row):
            box = f'x="{left + wide * j:.1f}" y="{y}" width="{wide - 1:.1f}" height="{_ROW - 1}"'
            if not count:
                parts.append(f'<rect {box} class="none"/>')
                continue
            share = hits / count
            title = f"{names[0][i]}, {names[1][j]}: {hits} of {count}"
            parts.append(
                f'<rect {box} fill="{_blue(share)}"><title>{escape(title)}</title></rect>'
                f'<text x="{left + wide * (j + 0.5):.1f}" y="{y + 16}" text-anchor="middle" '
                f'fill="{"#fff" if share > 0.65 else "#000"}">{100 * share:.0f}</text>'
            )
    bottom = top + _ROW * len(cells)
    shift = 0.5 if len(names[1]) == columns else 0.0
    for j, name in enumerate(names[1]):
        parts.append(_text(left + wide * (j + shift), bottom + 16, name))
    parts.append(_text((left + WIDTH - 20) / 2, bottom + 36, axes[1], most=100))
    return _svg(label, bottom + 46, parts)


def _svg(label: str, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}">\n'
        + "\n".join(parts)
        + "\n</svg>"
    )


def _text(x: float, y: float, text: str, anchor: str = "middle", most: int = _LABEL) -> str:
    if len(text) > most:  # names differ at their ends, as files of one folder do
        text = f"{text[: most // 3]}…{text[most // 3 + 1 - most :]}"
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str, style: str = "") -> str:
    named = f'class="{kind}"' if kind else style
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {named}/>'


def _dot(x: float, y: float, i: int, title: str) -> str:
    color = COLORS[i % len(COLORS)]
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}">'
        f"<title>{escape(title)}</title></circle>"
    )


def _stroke(i: int, width: str = "2") -> str:
    dash = DASHES[i // len(COLORS) % len(DASHES)]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'stroke="{COLORS[i % len(COLORS)]}" stroke-width="{width}"{dashed}'


def _shade(j: int) -> str:
    return "1" if j < len(COLORS) else "0.5"


def _margin(names: Iterable[str]) -> int:
    longest = max((min(len(name), _LABEL) for name in names), default=0)
    return int(longest * _LETTER) + 24


def _short(x: float) -> str:
    """A number for an axis: 30 K, 1.5 M."""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " K")):
        if x >= 0.9995 * unit:  # below, three digits do not round up to the unit
            return f"{x / unit:.3g}{name}"
    return f"{x:.3g}"


def _blue(share: float) -> str:
    """From nearly white at 0 to dark blue at 1, through the middle of the scale at a half."""
    stops = ((239, 243, 255), (107, 174, 214), (8, 69, 148))
    low, high = (stops[0], stops[1]) if share < 0.5 else (stops[1], stops[2])
    part = share * 2 if share < 0.5 else share * 2 - 1
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in zip(low, high, strict=True))
