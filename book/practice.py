"""Writes practice/dayNN.ipynb, the chapters with the answers taken out: make practice.

    python book/practice.py

Each begins with how it works. Its module cells have the signatures and docstrings and none of the
bodies, with hints (from hints.toml) and the book's own folded under each; cells with the tag
`given`, and functions that hints.toml calls given, stay whole. Checks of the page's own numbers
are left out: they would show answers. What the notebooks do when they run is in desk.py.

A notebook that is there already is never overwritten. The pages and pictures beside them are
copied anew each time, so that links work: those to a heading name it as JupyterLab does.
"""

import argparse
import ast
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import nbformat
from asserts import needed, without_asserts
from cells import HEADER
from nbformat.v4 import new_code_cell, new_markdown_cell
from pieces import HARNESS, blanks, hints, left

BOOK = Path(__file__).resolve().parent
ROOT = BOOK.parent
BESIDE = ("_static", "figures", "nanoserve.mplstyle", "*.json", "*.md", "how-fast.ipynb")
HOW = """\
## Day {number}, to be written by you

1. Run the cell below. It says whose pieces this notebook works with. Then read and run the page
   from top to bottom.
2. A cell that begins with `# nanoserve/` and has `raise NotImplementedError` in it is yours to
   write. Run it, and your code is at work at once. **Until then the book's own stands in its
   place**, so the cells above run; an empty cell that you run stops those that need it.
3. Hints, and the book's own, are folded under each.
4. The comparison near the end judges what you have run, and says under its board whose it was.
   Where it refuses, or `desk` is not found, the kernel is new: run the cell below first, then your
   pieces. The last cell shows what is written and what has passed. Later days use what has passed,
   and the book's for all else.

**To begin anew**, restart the kernel (Kernel, Restart) and run the cell below: all pieces of today
are the book's again until you run yours, whose text stays in its cells. For a blank notebook delete
`practice/{day}.ipynb` and run `make practice`, which writes what is missing and overwrites no
notebook. What you ran is also kept in `practice/mine/{day}.json`: delete that too, and later days
use the book's. `begin("{day}", mine=False)` uses the book's of all earlier days, for once."""
SETUP = """\
import sys

sys.path.insert(0, "../book")
from desk import begin

begin("{day}")
%reload_ext live"""
REFUSES = """\
if not hasattr(get_ipython(), "desk"):
    raise RuntimeError(
        "This kernel has not run the first cell: nothing of yours would be judged. "
        "Run it, then your pieces, then this cell."
    )

"""
UNCHECKED = "# For checks of the page's numbers, which are left out in practice."
PROGRESS = """\
from desk import progress

progress("{day}")"""


def blank(source: str, module: str, day: str) -> tuple[str, list[str]]:
    """A module cell without its bodies, and the names of the functions emptied."""
    lines, names = source.split("\n"), []
    for name, function in reversed(blanks(source, module)):
        has_doc = ast.get_docstring(function) is not None
        body = function.body[has_doc:]
        indent = " " * body[0].col_offset
        stub = f'raise NotImplementedError("{left(name, day)}")'
        lines[body[0].lineno - 1 : body[-1].end_lineno] = [indent + stub]
        names.append(name)
    return "\n".join(lines), names[::-1]


def practice(path: Path) -> nbformat.NotebookNode:
    """A chapter with the bodies of its module cells taken out."""
    notebook = nbformat.read(path, as_version=4)
    day, cells = path.stem, []
    how = HOW.format(number=int(day[3:]), day=day)
    cells += [new_markdown_cell(how), new_code_cell(SETUP.format(day=day))]
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    for cell in notebook.cells:
        if cell.cell_type != "code":
            cell.source = lab_links(cell.source, notebook)
            cells.append(cell)
            continue
        code.pop(0)  # what is left comes later
        if cell.source.endswith("%load_ext live"):
            continue
        cell.outputs, cell.execution_count = [], None
        cells += practised(cell, day, code)
    cells.append(new_code_cell(PROGRESS.format(day=day)))
    for number, cell in enumerate(cells):
        cell.id = f"{day}-practice-{number:03}"
    notebook.cells = cells
    return notebook


def practised(
    cell: nbformat.NotebookNode, day: str, later: list[str] = ()
) -> list[nbformat.NotebookNode]:
    """What stands in practice for a code cell of the book, of which `later` are those below."""
    tags = cell.metadata.get("tags", [])
    header = HEADER.match(cell.source + "\n")
    if header and header[1] != HARNESS and "given" not in tags:
        original = cell.source
        cell.source, names = blank(original, header[1], day)
        if not names:
            return [cell]
        cell.metadata.pop("jupyter", None)  # it is to be written
        told = "\n\n".join(hint(header[1], name) for name in names)
        own = f"```python\n{original}\n```"
        folds = fold("Hints", told), fold("The book's own", own)
        return [cell, *map(new_markdown_cell, folds)]
    if not header and ({"remove-cell", "hide-input"} & set(tags)):
        # JupyterLab shows a folded cell's first line, and a failing one shows the rest.
        rest = without_asserts(cell.source)
        if "remove-cell" in tags and rest != cell.source:
            # What the checks alone used may be a solution.
            rest = re.sub(r"\A#.*", UNCHECKED, rest) if needed(rest, later) else ""
        cell.source = rest
    if "comparison" in tags:
        cell.source = REFUSES + cell.source
    return [cell] if cell.source.strip() else []


def hint(module: str, name: str) -> str:
    """The steps to a function, numbered."""
    steps = hints().get(module, {}).get(name, [])
    return "\n".join([f"`{name}`", "", *(f"{i}. {s}" for i, s in enumerate(steps, 1))])


def lab_links(text: str, notebook: nbformat.NotebookNode | None = None) -> str:
    """Text whose links to a heading are JupyterLab's: `#Top-p`, where the book has `#top-p`."""

    def anchored(link: re.Match) -> str:
        texts = [text]
        if link[1]:
            texts = [(BOOK / link[1]).read_text("utf-8")]
        elif notebook:
            texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
        names = [name for part in texts for name in re.findall(r"^#+ (.+)$", part, re.MULTILINE)]
        slugs = {re.sub(r"[^\w -]", "", name).lower().replace(" ", "-"): name for name in names}
        return f"]({link[1] or ''}#{slugs.get(link[2], link[2]).replace(' ', '-')})"

    return re.sub(r"\]\(([\w-]+\.md)?#([\w-]+)\)", anchored, text)


def fold(summary: str, text: str) -> str:
    """Markdown that opens on a click."""
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def main(target: Path = ROOT / "practice") -> int:
    """Write what is not there yet; returns the exit status."""
    target.mkdir(exist_ok=True)
    for pattern in BESIDE:
        for path in BOOK.glob(pattern):
            if path.is_dir():
                shutil.copytree(path, target / path.name, dirs_exist_ok=True)
            elif path.suffix == ".md":
                text = lab_links(path.read_text("utf-8"))
                (target / path.name).write_text(text, "utf-8")
            else:
                shutil.copy(path, target / path.name)
    for path in sorted(BOOK.glob("day[0-9][0-9].ipynb")):
        new = target / path.name
        if new.exists():
            print(f"{new.name}: there already, left as it is")
            continue
        nbformat.write(practice(path), new)
        print(f"{new.name}: written")
    command = map(os.path.relpath, (sys.executable, BOOK / "lab.py", target))
    print(f"Open them with: {shlex.join(command)}")
    return 0


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # there are none
    sys.exit(main())
