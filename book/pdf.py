"""The built site as one PDF: every page's article in one document, printed by Chromium.

`make pdf`, after `make book`, writes _build/nanoserve.pdf. A browser prints what a reader of the
site sees; LaTeX would need every drawing and every interactive figure a second time.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build/html"
PDF = ROOT / "_build/nanoserve.pdf"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DROP = ".headerlink, .prev-next-area, button, .copybtn, script, iframe"
STYLE = """
@page { size: A4; margin: 18mm 16mm; }
body { background: none; }
.bd-article, .bd-article-container { padding: 0 !important; }
section.ns-page { break-before: page; }
section.ns-page:first-of-type { break-before: auto; }
h1, h2, h3, dt, summary, .ns-folded { break-after: avoid; }
tr { break-inside: avoid; }
.bd-article table :is(th, td) { font-size: 0.85rem; }
.bd-article .nanoserve-scoreboard :is(th, td) { font-size: 0.75rem; padding: 0.15rem 0.4rem; }
h1 { display: block !important; }
pre { white-space: pre-wrap; font-size: 0.7rem !important; }
.ns-diagram, .cell_output, div.math { overflow: visible !important; }
.ns-folded { font-size: 0.8rem; font-style: italic; }
"""


def page_names(toc: dict) -> list[str]:
    """The pages of _toc.yml in reading order, without their endings."""
    chapters = [c["file"] for part in toc.get("parts", []) for c in part["chapters"]]
    return [toc["root"], *chapters]


def article(html: str, name: str, names: list[str]) -> tuple[BeautifulSoup, bool]:
    """A page's article with its anchors and inner links made unique, and whether it has math."""
    soup = BeautifulSoup(html, "html.parser")
    body = soup.select_one("article.bd-article")
    for node in body.select(DROP):
        node.decompose()
    for node in body.select("[id]"):
        node["id"] = anchor(name, node["id"])
    for picture in body.select("a.image-reference"):  # the file alone would be out of reach
        picture.unwrap()
    for link in body.select("a[href]"):
        link["href"] = inner_link(link["href"], name, names)
    for code in body.select("details.hide"):  # folded on the site, and up to 500 lines long
        shown = code.select_one(".cell_input")
        if shown.get_text().lstrip().startswith("# nanoserve/"):  # a part of the package
            code.replace_with(shown)
            continue
        note = soup.new_tag("p", attrs={"class": "ns-folded"})
        note.string = f"The code of this cell is in {Path(name).name}.ipynb."
        code.replace_with(note)
    for fold in body.select("details"):
        fold["open"] = ""
    body["id"] = anchor(name, "")
    body.name = "section"
    body["class"] = [*body.get("class", []), "ns-page"]
    return body, "mathjax/" in html


def anchor(name: str, fragment: str) -> str:
    return f"{Path(name).name}--{fragment}"


def inner_link(href: str, name: str, names: list[str]) -> str:
    """A link to another page of the book becomes one to its place in this document."""
    page, _, fragment = href.partition("#")
    if re.match(r"[a-z]+:", href):
        return href
    target = Path(name).parent / page.removesuffix(".html") if page else Path(name)
    return f"#{anchor(str(target), fragment)}" if str(target) in names else href


def one_document(names: list[str]) -> str:
    """All articles in the head of a page that loads the style sheets, and MathJax if any needs."""
    articles, template = [], None
    for name in names:
        html = (HTML / f"{name}.html").read_text(encoding="utf-8")
        body, has_math = article(html, name, names)
        articles.append(str(body))
        if template is None or has_math:
            template = html
    head = BeautifulSoup(template, "html.parser").head
    for node in head.select("script"):
        if "athJax" not in str(node) and "mathjax/" not in node.get("src", ""):
            node.decompose()
    head.title.string = "nanoserve"
    return (
        f'<!doctype html><html lang="en" data-theme="light">{head}<style>{STYLE}</style>'
        f'<body><div class="bd-main"><div class="bd-content"><div class="bd-article-container">'
        f'<article class="bd-article">{"".join(articles)}</article></div></div></div></body></html>'
    )


def main() -> int:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"make pdf prints with a browser and found none of {', '.join(BROWSERS)}")
        return 1
    names = page_names(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
    page = HTML / Path(names[0]).parent / "print.html"
    page.write_text(one_document(names), encoding="utf-8")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
                f"--user-data-dir={profile}",
                "--no-pdf-header-footer",
                "--generate-pdf-document-outline",
                "--virtual-time-budget=60000",
                f"--print-to-pdf={PDF}",
                page.as_uri(),
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )
    page.unlink()
    print(f"Open {PDF.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # there are none
    sys.exit(main())
