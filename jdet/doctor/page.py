"""An examination as one HTML file with thumbnails: no network, no script, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from jdet.doctor import input_checks
from jdet.doctor.class_checks import class_counts
from jdet.doctor.examine import Examination
from jdet.doctor.findings import SEVERITIES, Case, Finding, Place
from jdet.doctor.report import described
from jdet.doctor.thumbnails import Thumbnails

SHOWN = 8
"""Cases of a finding that are shown with images."""

_TOGETHER = 4
"""Images of a case at most."""

_STYLE = Path(__file__).with_name("page.css")


def render(examination: Examination) -> str:
    """The page, a whole HTML document."""
    thumbnails = Thumbnails(examination.config, {one.name: one for one in examination.splits})
    title = f"Data of {examination.name}"
    sections = "\n".join(_finding(finding, thumbnails) for finding in examination.findings)
    text = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{_STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{_verdict(examination)}
{_contents(examination)}
{sections}
{_classes(examination)}
{_sizes(examination)}
<footer>Examined in {examination.seconds:.0f} seconds.</footer>
</main>
</body>
</html>
"""
    # Names of files need not be text.
    return text.encode("utf-8", "replace").decode("utf-8")


def _verdict(examination: Examination) -> str:
    counts = {severity: examination.count(severity) for severity in SEVERITIES}
    if not examination.findings:
        return '<p class="verdict">Nothing is wrong with these data.</p>'
    chips = " ".join(
        f'<span class="chip {severity}">{count} {severity}{"s" * (count != 1)}</span>'
        for severity, count in counts.items()
        if count
    )
    return f'<p class="verdict">{chips}</p>'


def _contents(examination: Examination) -> str:
    if not examination.findings:
        return ""
    rows = "\n".join(
        f'<li><span class="chip {one.severity}">{one.severity}</span> '
        f'<a href="#{one.name}">{escape(one.title)}</a></li>'
        for one in examination.findings
    )
    return f'<nav aria-label="Findings"><ul class="contents">\n{rows}\n</ul></nav>'


def _finding(finding: Finding, thumbnails: Thumbnails) -> str:
    shown = "\n".join(_figures(finding, thumbnails))
    listed = [described(case) for case in finding.cases]
    listed = [text for text in listed if text]
    rest = ""
    if listed:
        more = finding.count - len(finding.cases)
        items = "".join(f"<li>{escape(text)}</li>" for text in listed)
        items += f"<li>and {more:,} more, in number</li>" if more > 0 and shown else ""
        rest = f"<details><summary>All that are kept, {len(listed):,}</summary><ul>{items}</ul></details>"
    gallery = f'<div class="gallery">\n{shown}\n</div>' if shown else ""
    return f"""<section id="{finding.name}" class="{finding.severity}">
<h2><span class="chip {finding.severity}">{finding.severity}</span> {escape(finding.title)}</h2>
<p>{escape(finding.consequence)}</p>
<p class="remedy"><strong>What to do:</strong> {escape(finding.remedy)}</p>
{gallery}
{rest}
</section>"""


def _figures(finding: Finding, thumbnails: Thumbnails) -> Iterator[str]:
    for case in finding.cases[:SHOWN]:
        images = [_thumbnail(place, thumbnails) for place in case.places[:_TOGETHER]]
        if any(images):
            yield (
                f'<figure><div class="images">{"".join(images)}</div>'
                f"<figcaption>{_caption(case)}</figcaption></figure>"
            )


def _thumbnail(place: Place, thumbnails: Thumbnails) -> str:
    found = thumbnails(place)
    if found is None:
        return ""
    address, width, height = found
    alt = escape(f"{place.split}: {place.called}", quote=True)
    return f'<img src="{address}" width="{width}" height="{height}" alt="{alt}" loading="lazy">'


def _caption(case: Case) -> str:
    names = " and ".join(
        f'<span class="split">{escape(place.split)}</span> <b>{escape(place.called)}</b>'
        for place in case.places[:_TOGETHER]
    )
    return f"{names}<br>{escape(case.note)}" if case.note else names


def _classes(examination: Examination) -> str:
    """Objects of each class in each split, with bars."""
    counts = class_counts(examination.splits)
    names = examination.splits[0].source.class_names
    heads = "".join(
        f'<th scope="col" colspan="2">{escape(s.name)}</th>' for s in examination.splits
    )
    most = counts.max(1)
    rows = []
    for label, name in enumerate(names):
        cells = "".join(
            f'<td class="number">{count:,}</td><td class="bar">'
            f'<span style="width:{100 * count / max(top, 1):.1f}%"></span></td>'
            for count, top in zip(counts[:, label].tolist(), most.tolist())
        )
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    images = "".join(
        f'<td class="number">{len(split.ids):,}</td><td></td>' for split in examination.splits
    )
    return f"""<section>
<h2>Objects of each class</h2>
<div class="wide"><table>
<thead><tr><th scope="col">class</th>{heads}</tr></thead>
<tbody>
<tr><th scope="row">(images)</th>{images}</tr>
{"".join(rows)}
</tbody></table></div>
</section>"""


def _sizes(examination: Examination) -> str:
    """Sizes at the network's input."""
    if not examination.sizes:
        return ""
    sides = list(examination.sizes[0]["under"])
    heads = "".join(f'<th scope="col">under {side}</th>' for side in sides)
    rows = []
    for row in examination.sizes:
        low, middle, high = row["sizes"]
        cells = "".join(f'<td class="number">{row["under"][side]:.1%}</td>' for side in sides)
        rows.append(
            f'<tr><th scope="row">{escape(row["class"])}</th><td class="number">{row["objects"]:,}</td>'
            f'<td class="number">{low:g} / {middle:g} / {high:g}</td>{cells}</tr>'
        )
    where = escape(input_checks.setting(examination.config))
    return f"""<section>
<h2>Sizes at the network's input</h2>
<p>Square roots of areas in pixels, at {where}.</p>
<div class="wide"><table>
<thead><tr><th scope="col">class</th><th scope="col">objects</th>
<th scope="col">10 / 50 / 90 %</th>{heads}</tr></thead>
<tbody>
{"".join(rows)}
</tbody></table></div>
</section>"""
