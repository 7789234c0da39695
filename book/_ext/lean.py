"""Take out of each page what it does not need, and put right what axe-core finds in the rest.

- sphinx-thebe: jupyter-book always loads it, twice, with the address of a script elsewhere.
- MathJax on the first page: Sphinx counts the formulas of every page below it.
- sphinx-design where nothing is designed with it.
- a span around each name, sign and space of the code: they have the colour of what is around
  them (code.css), and are half of a chapter's elements.
- a folded cell's label, which hides the words that a reader sees.
- a wide formula scrolls, and so does folded code on a telephone: the keyboard must reach both.
- an output wider than a telephone says how wide it is: nanoserve.css makes its letters smaller.
- a search from a file: an excerpt would have to be fetched, which no browser allows there.
"""

import html
import re

from docutils import nodes

UNFOLD = ' aria-label="Toggle hidden content"'
FORMULA = '<div class="math notranslate nohighlight"'
CODE = re.compile(r'(?<=<div class="highlight"><pre>).*?(?=</pre>)', re.DOTALL)
INK = re.compile(r'<span class="(?:n|o|p|w|nn|nx|pm)">([^<]*)</span>')
FOLDED = re.compile(r"<details.*?</details>", re.DOTALL)
OUTPUT = re.compile(
    r'(<div class="output [^>]*><div class="highlight"><pre)(>(.*?)</pre>)', re.DOTALL
)
TAG = re.compile(r"<[^>]*>")
NARROW = 48  # characters of code on a telephone
FROM_A_FILE = "if (location.protocol === 'file:') DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false"


def has_math(doctree: nodes.document | None) -> bool:
    if doctree is None:
        return False
    return any(isinstance(n, nodes.math | nodes.math_block) for n in doctree.findall(nodes.Element))


def wanted(asset, math: bool, design: bool = False, search: bool = False) -> bool:
    """Whether a page with these things in it keeps a script or style sheet of Sphinx's."""
    name, body = str(asset.filename or ""), asset.attributes.get("body", "") or ""
    if "thebe" in name or "THEBE_JS_URL" in body:
        return False
    if "sphinx-design" in name or "design-tabs" in name:
        return design
    if body == FROM_A_FILE:
        return search
    return math or not ("mathjax/" in name or "window.MathJax" in body)


def sized(output: re.Match) -> str:
    """An output with the length of its longest line, where that is more than a telephone shows."""
    lines = html.unescape(TAG.sub("", output[3])).splitlines()
    columns = max(map(len, lines), default=0)
    style = f' style="--ns-columns: {columns}"' if columns > NARROW else ""
    return output[1] + style + output[2]


def lighter(body: str) -> str:
    """A page's HTML with less in it and the same to see."""
    body = CODE.sub(lambda code: INK.sub(r"\1", code[0]), body)
    body = OUTPUT.sub(sized, body)
    body = FOLDED.sub(lambda fold: fold[0].replace("<pre>", '<pre tabindex="0">'), body)
    return body.replace(UNFOLD, "").replace(FORMULA, FORMULA.replace("<div", '<div tabindex="0"'))


def trim(app, pagename, templatename, context, doctree) -> None:
    body = context.get("body", "")
    has = (has_math(doctree), 'class="sd-' in body, pagename == "search")
    for assets in ("script_files", "css_files"):
        context[assets] = [one for one in context[assets] if wanted(one, *has)]
    if body:
        context["body"] = lighter(body)


def setup(app) -> dict:
    app.add_js_file(None, body=FROM_A_FILE)
    app.connect("html-page-context", trim, priority=900)  # after whoever adds a script
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
