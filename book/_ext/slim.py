"""After the build: take out of the site's files what none of its pages uses.

- style sheets of the theme: rules for classes that no page and no script names
- Font Awesome: every glyph but the twenty or so that the style sheets still draw
- figures: a palette of 256 colours instead of 16 million, where that makes the file smaller

What it leaves out is decided by the built pages themselves, and tests/test_site.py looks at them.
"""

import re
from pathlib import Path

import tinycss2
from fontTools import subset
from PIL import Image

SHEETS = ("styles/pydata-sphinx-theme.css", "sphinx-design.min.css", "mystnb.*.css")
UNUSED_SCRIPT = "fontawesome.js"  # names every icon there is; no page loads it
WORD = re.compile(r"[A-Za-z_][\w-]*")
OPEN = re.compile(r":(?:not|is|where|has)\((?:[^()]|\([^()]*\))*\)")
CLASS = re.compile(r"\.(-?[A-Za-z_](?:[\w-]|\\.)*)")
GLYPH = re.compile(r'"\\([0-9a-f]{4})"|(?:--fa|content): ?"([^"\\])"')  # escaped, or as itself


def words_of(site: Path) -> set[str]:
    """Every word in a page or a script, as a class that a script adds is a word in it."""
    pages = [*site.glob("*.html"), *site.glob("book/*.html")]
    scripts = [path for path in site.glob("_static/**/*.js") if path.name != UNUSED_SCRIPT]
    return {w for path in [*pages, *scripts] for w in WORD.findall(path.read_text("utf-8"))}


def purge(css: str, words: set[str]) -> str:
    """The style sheet without the selectors that need a class which is not among `words`."""
    return _serialized(tinycss2.parse_stylesheet(css, True, True), words)


def _serialized(rules: list, words: set[str]) -> str:
    kept = []
    for rule in rules:
        if rule.type == "qualified-rule":
            chosen = [s for s in _selectors(rule.prelude) if _used(s, words)]
            if chosen:
                kept.append(f"{','.join(chosen)}{{{tinycss2.serialize(rule.content)}}}")
        elif rule.type == "at-rule" and rule.at_keyword in ("media", "supports", "layer"):
            if rule.content is None:
                kept.append(rule.serialize())
                continue
            inner = tinycss2.parse_rule_list(rule.content, True, True)
            text = _serialized(inner, words)
            if text:
                head = tinycss2.serialize(rule.prelude)
                kept.append(f"@{rule.at_keyword}{head}{{{text}}}")
        elif rule.type == "error":
            raise ValueError(f"line {rule.source_line} of a style sheet: {rule.message}")
        else:
            kept.append(rule.serialize())
    return "".join(kept)


def _selectors(prelude: list) -> list[str]:
    """The selectors of a rule; a comma in brackets is a token of theirs and no end."""
    parts: list[list] = [[]]
    for token in prelude:
        if token.type == "literal" and token.value == ",":
            parts.append([])
        else:
            parts[-1].append(token)
    return [tinycss2.serialize(part).strip() for part in parts]


def _used(selector: str, words: set[str]) -> bool:
    """Whether it can match; what is in the brackets of :not and :is may be absent."""
    return all(name.replace("\\", "") in words for name in CLASS.findall(OPEN.sub("", selector)))


def glyphs_of(site: Path) -> set[int]:
    """The code points that the style sheets put on the page."""
    sheets = (path.read_text("utf-8") for path in site.glob("_static/**/*.css"))
    found = (pair for css in sheets for pair in GLYPH.findall(css))
    return {int(code, 16) if code else ord(sign) for code, sign in found}


def shrink_fonts(folder: Path, glyphs: set[int]) -> None:
    """Keep these code points of each font; the formats that no browser of today asks for go."""
    for path in folder.glob("*.ttf"):
        path.unlink()
    options = subset.Options(flavor="woff2", layout_features=[], notdef_outline=True)
    for path in folder.glob("*.woff2"):
        font = subset.load_font(str(path), options)
        cutter = subset.Subsetter(options)
        cutter.populate(unicodes=glyphs)
        cutter.subset(font)
        subset.save_font(font, str(path), options)


def shrink_picture(path: Path) -> None:
    """Give a PNG a palette, unless it has one or would not get smaller."""
    with Image.open(path) as picture:
        if picture.mode == "P":
            return
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    draft = path.with_suffix(".draft")
    small.save(draft, "PNG", optimize=True)
    if draft.stat().st_size < path.stat().st_size:
        draft.replace(path)
    else:
        draft.unlink()


def slim(app, error) -> None:
    if error is not None or app.builder.name != "html":
        return
    site = Path(app.outdir)
    words = words_of(site)
    (site / "_static/scripts" / UNUSED_SCRIPT).unlink(missing_ok=True)
    sheets = [path for name in SHEETS for path in site.glob(f"_static/{name}")]
    for path in sheets:
        path.write_text(purge(path.read_text("utf-8"), words), "utf-8")
    shrink_fonts(site / "_static/vendor/fontawesome/webfonts", glyphs_of(site))
    for path in site.glob("_images/*.png"):
        shrink_picture(path)


def setup(app) -> dict:
    app.connect("build-finished", slim)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
