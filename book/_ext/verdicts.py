"""The table of the landing page: which days stand, and their verdicts as they ran for this build.

A row of it is one line of its HTML, `<tr data-day="05"><td>5: SwiGLU</td>...<td class="pass">
</td></tr>`. Where the book has a page of that day, the name becomes a link to it and the last cell
the number of tensors that matched HuggingFace; a comparison without a verdict is a warning, and so
is an empty cell. Days without a page are named together as to come, without links.
"""

import re

from days import DAY
from docutils import nodes
from sphinx.util import logging

LOG = logging.getLogger(__name__)
# As nanoserve.comparison.Scoreboard.verdict words it.
VERDICT = re.compile(r": ([\d,]+) tensors match HuggingFace")
ROW = re.compile(r'<tr data-day="(\d\d)"><td>(\d+: )(.*?)</td>(.*)<td class="pass"></td></tr>')


def matched(doctree: nodes.document) -> int:
    """How many tensors the comparison cells of a day found to match."""
    tables = [
        raw.astext()
        for cell in doctree.findall(nodes.container)
        if "tag_comparison" in cell["classes"]
        for raw in cell.findall(nodes.raw)
    ]
    counts = [found[1].replace(",", "") for table in tables for found in VERDICT.finditer(table)]
    return sum(map(int, counts))


def fill(text: str, counts: dict[str, int], pages: dict[str, str], location: str) -> str:
    """The text with its rows written out: `pages` has the address of each day that stands."""
    lines: list[str] = []
    coming: list[str] = []
    for line in [*text.splitlines(), ""]:
        row = ROW.fullmatch(line.strip())
        if row and row[1] not in pages:
            coming.append(f"<span>{row[2]}{row[3]}</span>")
            continue
        if coming:
            names = ", ".join(coming)
            lines.append(f'<tr class="ns-coming"><td colspan="4">to come: {names}</td></tr>')
            coming.clear()
        lines.append(_standing(row, counts, pages[row[1]], location) if row else line)
    return "\n".join(lines).rstrip("\n")


def _standing(row: re.Match, counts: dict[str, int], page: str, location: str) -> str:
    day, number, name, cells = row.groups()
    count = counts.get(day, 0)
    if not count:
        LOG.warning("no comparison of Day %s printed a verdict", day, location=location)
    if "<td></td>" in cells:
        LOG.warning("say what Day %s compares and catches, in its row", day, location=location)
    found = f"{count:,}" if count else ""
    first = f'<td>{number}<a href="{page}">{name}</a></td>'
    return f'<tr>{first}{cells}<td class="pass">{found}</td></tr>'


def known(env) -> dict[str, int]:
    """The number of each day, kept in Sphinx's environment from one build to the next."""
    if not hasattr(env, "nanoserve_matched"):
        env.nanoserve_matched = {}
    return env.nanoserve_matched


def on_read(app, doctree: nodes.document) -> None:
    if DAY.fullmatch(app.env.docname):
        known(app.env)[app.env.docname[-2:]] = matched(doctree)


def on_resolved(app, doctree: nodes.document, docname: str) -> None:
    tables = [raw for raw in doctree.findall(nodes.raw) if ROW.search(raw.astext())]
    if tables:
        days = [name for name in app.env.found_docs if DAY.fullmatch(name)]
        pages = {name[-2:]: app.builder.get_relative_uri(docname, name) for name in days}
        for raw in tables:
            filled = fill(raw.astext(), known(app.env), pages, docname)
            raw.children[:] = [nodes.Text(filled)]


def landing_page(app, env) -> list[str]:
    """It is written anew with whatever day is."""
    return [app.config.root_doc]


def forget(app, env, docname: str) -> None:
    known(env).pop(docname[-2:], None)


def setup(app) -> dict:
    app.connect("doctree-read", on_read)
    app.connect("doctree-resolved", on_resolved)
    app.connect("env-purge-doc", forget)
    app.connect("env-updated", landing_page)
    return {"version": "1", "env_version": 1, "parallel_read_safe": False}
