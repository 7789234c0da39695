"""Take out of each page what it does not need, and put right what axe-core finds in the rest.

- sphinx-thebe: jupyter-book always loads it, twice, with the address of a script elsewhere.
- MathJax on the first page: Sphinx counts the formulas of every page below it.
- a folded cell's label, which hides the words that a reader sees.
- a wide formula scrolls, so the keyboard must reach it.
"""

from docutils import nodes

UNFOLD = ' aria-label="Toggle hidden content"'
FORMULA = '<div class="math notranslate nohighlight"'


def has_math(doctree: nodes.document | None) -> bool:
    if doctree is None:
        return False
    return any(isinstance(n, nodes.math | nodes.math_block) for n in doctree.findall(nodes.Element))


def wanted(script, math: bool) -> bool:
    """Whether a page keeps this script: a Sphinx _JavaScript, with its name and its text."""
    name, body = str(script.filename or ""), script.attributes.get("body", "") or ""
    if "thebe" in name or "THEBE_JS_URL" in body:
        return False
    return math or not ("mathjax/" in name or "window.MathJax" in body)


def trim(app, pagename, templatename, context, doctree) -> None:
    math = has_math(doctree)
    context["script_files"] = [s for s in context["script_files"] if wanted(s, math)]
    if "body" in context:
        body = context["body"].replace(UNFOLD, "")
        context["body"] = body.replace(FORMULA, FORMULA.replace("<div", '<div tabindex="0"'))


def setup(app) -> dict:
    app.connect("html-page-context", trim, priority=900)  # after whoever adds a script
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
