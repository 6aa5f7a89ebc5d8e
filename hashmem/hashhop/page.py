"""The parts of an HTML page that needs nothing else: no network, no scripts.

Text is escaped where it is put in, and the page's Content-Security-Policy forbids scripts and
requests on top of that.
"""

from collections.abc import Iterable, Sequence

from hashmem.hashhop.svg import escape

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
figure { margin: 1rem 0; } figcaption, .note { font-size: .9rem; opacity: .8; }
svg { width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; }
svg text:not([fill]) { fill: currentColor; }
svg .grid { stroke: currentColor; opacity: .2; }
svg .none { fill: none; stroke: currentColor; opacity: .2; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { text-align: left; padding: .2rem .7rem .2rem 0; border-bottom: 1px solid #8884;
  vertical-align: top; overflow-wrap: break-word; }
td.n, th.n { text-align: right; white-space: nowrap; }
summary { cursor: pointer; }
"""


def page(title: str, body: str) -> str:
    """Return the whole document; `body` is HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def section(title: str, body: str) -> str:
    """Return a part of the page under a heading; both are HTML."""
    return f"<section>\n<h2>{title}</h2>\n{body}\n</section>"


def figure(chart: str, caption: str, table: str, *, opened: bool = False) -> str:
    """Return a chart with its caption, which is text, and its figures as a table."""
    shown = table if opened else details("As a table", table)
    return f"<figure>\n{chart}\n<figcaption>{escape(caption, 600)}</figcaption>\n</figure>\n{shown}"


def details(summary: str, body: str, *, opened: bool = False) -> str:
    """Return what is shown on a click on `summary`, which is text; `body` is HTML."""
    return f"<details{' open' * opened}><summary>{escape(summary)}</summary>\n{body}\n</details>"


def table(head: Sequence[object], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """Return a table of text, a row's first cell its heading. Columns of numbers go right."""
    lines = [f"<caption>{escape(caption)}</caption>"] if caption else []
    rows = list(rows)
    number = [all(isinstance(row[i], int) for row in rows) for i in range(len(head))]
    classes = [' class="n"' if right else "" for right in number]
    lines.append(
        "<thead><tr>"
        + "".join(
            f'<th scope="col"{kind}>{escape(cell)}</th>'
            for cell, kind in zip(head, classes, strict=True)
        )
        + "</tr></thead>\n<tbody>"
    )
    for row in rows:
        cells = [f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(row, classes, strict=True)]
        cells[0] = f'<th scope="row"{classes[0]}>{escape(row[0])}</th>'
        lines.append("<tr>" + "".join(cells) + "</tr>")
    return '<div class="wide"><table>' + "\n".join(lines) + "</tbody></table></div>"
