"""The notebooks as JupyterLab shows them, in a real browser: no answer is in sight in practice."""

import ast
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from cells import HEADER
from pieces import body_of, functions, is_given
from practice import main
from site_browser import BROWSER

ROOT = Path(__file__).resolve().parent.parent
DAYS = sorted(path.stem for path in (ROOT / "book").glob("day[0-9][0-9].ipynb"))
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no browser is installed")
# Without a load of all of JupyterLab, and without a kernel, which nothing here asks.
OPEN = """async (path) => {
  const commands = window.jupyterapp.commands;
  await window.jupyterapp.restored;
  await commands.execute("application:close-all");
  const kernelPreference = {shouldStart: false, canStart: false};
  await commands.execute("docmanager:open", {path, factory: "Notebook", kernelPreference});
}"""
# All cells at once: else those out of sight are not in the page.
SETTINGS = '{"windowingMode": "none"}'


@contextmanager
def served(folder: Path, home: Path):
    """The address of a JupyterLab on `folder`."""
    settings = home / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text(SETTINGS)
    flags = [
        "--no-browser",
        "--allow-root",
        "--ServerApp.port=0",
        "--IdentityProvider.token=sesame",
        "--LabApp.expose_app_in_browser=True",
    ]
    flags += [f"--LabApp.user_settings_dir={home / 'settings'}"]
    server = subprocess.Popen(
        [sys.executable, ROOT / "book" / "lab.py", folder, *flags],
        env=os.environ | {"HOME": str(home), "NANOSERVE_WEIGHTS": str(ROOT / "weights")},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    said = []
    try:
        for line in server.stderr:
            said.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+/lab", line):
                yield found[0], said
                return
        raise AssertionError("".join(said))
    finally:
        server.terminate()
        server.communicate()


@pytest.fixture(scope="module")
def practice(tmp_path_factory, browser):
    """A function that opens a day of practice, blank, as JupyterLab shows it."""
    work = tmp_path_factory.mktemp("work")
    assert main(work / "practice") == 0
    with served(work / "practice", work / "home") as (address, _):
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"{address}?reset&token=sesame")
        page.wait_for_function("window.jupyterapp")

        def opened(day: str):
            page.evaluate(OPEN, f"{day}.ipynb")
            page.locator(".jp-Notebook .jp-MarkdownOutput h2").first.wait_for(timeout=90_000)
            page.locator(".jp-Notebook .cm-content").last.wait_for(timeout=90_000)
            return page

        yield opened


def in_sight(page) -> str:
    """Every text that a reader sees who has scrolled from the notebook's top to its end."""
    scroller = page.locator(".jp-WindowedPanel-outer").first
    top, height = 0, scroller.evaluate("node => node.scrollHeight")
    while top < height:  # what has come into sight stays in the page
        scroller.evaluate("(node, top) => node.scrollTo(0, top)", top)
        page.wait_for_timeout(60)
        top += 700
    return flat(page.locator("body").inner_text())


def flat(text: str) -> str:
    return re.sub(r"[\s\u200b]+", " ", text)


def plain(markdown: str) -> str:
    """Markdown as its text shows, up to the first thing that is hard to tell."""
    text = re.sub(r"[*`]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", markdown))
    return flat(re.split(r"[$\\|<]", text)[0]).strip()


def answers(day: str) -> list[str]:
    """What a reader of the day must not see: solutions, the page's asserts, the bodies to write."""
    cells = nbformat.read(ROOT / "book" / f"{day}.ipynb", as_version=4).cells
    shown = flat("\n".join(c.source for c in cells if not HEADER.match(c.source + "\n")))
    found = []
    for cell in cells:
        header, tags = HEADER.match(cell.source + "\n"), cell.metadata.get("tags", [])
        if cell.cell_type == "markdown":
            for solution in re.findall(
                r"<summary>Solution</summary>(.*?)</details>", cell.source, re.S
            ):
                found += [s for s in re.split(r"(?<=[.:])\s", plain(solution)) if len(s) > 25]
        elif header and header[1] != "reference" and "given" not in tags:
            for name, function in functions(ast.parse(cell.source)):
                if not is_given(header[1], name):
                    lines = [ast.unparse(node) for node in body_of(function)]
                    found += [s for s in map(flat, lines) if len(s) > 25 and s not in shown]
        elif "remove-cell" in tags and "%load_ext" not in cell.source:
            nodes = [n for n in ast.walk(ast.parse(cell.source)) if isinstance(n, ast.Assert)]
            found += [flat(ast.unparse(node)) for node in nodes]
    return found


@pytest.mark.parametrize("day", DAYS)
def test_no_answer_is_in_sight_before_it_is_given(practice, day):
    page, secrets = practice(day), answers(day)
    text = in_sight(page)
    assert f"Day {int(day[3:])}, to be written by you" in text and "is yours to write" in text
    assert "Recap" in text and text.count("Hints") >= 1  # down to the end
    assert len(secrets) > 5 and [secret for secret in secrets if secret in text] == []
    # What is opened is in sight: this test would see it.
    page.evaluate("document.querySelectorAll('details').forEach(node => (node.open = true))")
    opened = flat(page.locator("body").inner_text())
    assert any(secret in opened for secret in secrets)


def test_a_link_to_a_term_leads_to_it(practice):
    page = practice("day06")
    page.locator('.jp-Notebook a[href*="#Grouped-query-attention-(GQA)"]').first.click()
    term = page.locator(".jp-MarkdownViewer h2", has_text="Grouped-query attention (GQA)").first
    term.wait_for()
    page.wait_for_function(
        "node => node.getBoundingClientRect().y < 300", arg=term.element_handle()
    )


def test_the_book_is_trusted_and_its_tools_are_out_of_sight(browser, tmp_path):
    with served(ROOT / "book", tmp_path) as (address, said):
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"{address}/tree/day06.ipynb?reset&token=sesame")
        page.locator(".jp-Notebook .jp-RenderedHTML svg").first.wait_for(timeout=90_000)
        names = page.locator(".jp-DirListing-itemText").all_inner_texts()
        assert "day06.ipynb" in names
        assert [name for name in names if name.endswith((".py", ".json")) or name[0] == "_"] == []
        assert page.locator(".jp-RenderedHTML .say").count() >= 1
        page.close()
    assert [line for line in said if line.startswith("[W") or "Warning" in line] == []
