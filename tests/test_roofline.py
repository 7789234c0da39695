"""The interactive figure of Day 11 computes what nanoserve.cost does, and says what it computes.

Its formulas run in Node, or in a browser where there is none; a test that finds neither is skipped.
"""

import itertools
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from site_browser import BROWSER, start

from nanoserve.checkpoints.twin import CONFIG
from nanoserve.config import ModelConfig
from nanoserve.cost import Machine, step_cost

BOOK = Path(__file__).resolve().parents[1] / "book"
FIGURE = (BOOK / "_static/roofline.html").read_text("utf-8")
LLAMA = ModelConfig.from_dict(CONFIG)
EIGHT = replace(
    LLAMA,
    hidden_size=4096,
    intermediate_size=14336,
    head_dim=128,
    num_hidden_layers=32,
    tie_word_embeddings=False,
)
MODELS = {"Llama-3.2-1B": LLAMA, "Llama-3.1-8B": EIGHT}
H100, L4, SLOW = [3.35e12, 989e12], [0.3e12, 121e12], [2e10, 1e11]
SET = """(node, value) => {
    node.value = value;
    node.dispatchEvent(new Event("input", {bubbles: true}));
}"""
SETTINGS = list(
    itertools.product(
        MODELS, (1, 16, 512), (128, 2048, 131072), (32, 16, 4), (16, 8), (H100, L4, SLOW)
    )
)


def shown() -> str:
    """The figure as Day 11 shows it."""
    cells = json.loads((BOOK / "day11.ipynb").read_text("utf-8"))["cells"]
    html = [
        "".join(o.get("data", {}).get("text/html", "")) for c in cells for o in c.get("outputs", [])
    ]
    (text,) = (one for one in html if 'class="roofline-figure"' in one)
    return text


def data(name: str) -> dict:
    """The numbers that the page has filled in."""
    return json.loads(re.search(rf"\b{name} = (\{{.*?\}})[,;]", shown())[1])


def run(script: str):
    """What a script's last function gives, in whatever runs JavaScript here."""
    if node := shutil.which("node"):
        code = f"console.log(JSON.stringify(({script})()))"
        done = subprocess.run([node], input=code, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)
    if BROWSER is None:
        pytest.skip("neither Node nor a browser is installed")
    with start() as browser:
        return browser.new_page().evaluate(f"({script})()")


def figures_answers(html: str) -> list[dict]:
    """Parts and seconds of every setting, by the figure's formulas."""
    formulas = html.split("// formulas\n")[1].split("// end of formulas")[0]
    models = data("MODELS")
    asked = [[models[model], *rest] for model, *rest in SETTINGS]
    return run(
        f"() => {{ {formulas} return {json.dumps(asked)}.map(([model, b, s, w, c, machine]) => {{"
        "const parts = cost(model, b, s, w, c);"
        "const times = Object.values(parts).map((part) => seconds(part, machine));"
        "return {parts, seconds: times.reduce((a, b) => a + b)}; }) }"
    )


def wrong_answers(html: str) -> list[tuple]:
    """The settings at which figure and package differ."""
    found = []
    for setting, mine in zip(SETTINGS, figures_answers(html), strict=True):
        model, batch, context, weights, cache, machine = setting
        parts = step_cost(
            MODELS[model], batch=batch, context=context, weight_bits=weights, cache_bits=cache
        )
        wanted = {name: vars(part) for name, part in parts.items()}
        seconds = Machine(*machine).seconds(parts)
        if mine["parts"] != wanted or mine["seconds"] != pytest.approx(seconds, rel=1e-12):
            found.append(setting)
    return found


def test_its_formulas_are_the_packages():
    assert wrong_answers(FIGURE) == []


@pytest.mark.parametrize(
    "old, new",
    [
        ("2 * matrices * texts", "matrices * texts"),
        ("texts * context * cached * cache", "texts * context * cached * weights"),
        ("Math.max(part.bytes", "Math.min(part.bytes"),
        ("table * weights) / 8", "table * weights) / 16"),
    ],
)
def test_a_slip_in_them_is_seen(old, new):
    assert FIGURE.count(old) == 1
    assert wrong_answers(FIGURE.replace(old, new))


def test_the_picture_without_a_script_is_the_packages():
    root = BeautifulSoup(FIGURE, "html.parser")
    say, machine = root.select_one(".say").text, Machine(*H100)
    bars = {
        name: [float(r["width"]) for r in root.select(f"rect.{name}")]
        for name in ("blocks", "attention", "head")
    }
    for i, batch in enumerate((1, 64)):
        parts = step_cost(LLAMA, batch=batch, context=2048, weight_bits=16, cache_bits=16)
        for name, part in parts.items():
            assert bars[name][i] == pytest.approx(150e3 * machine.seconds({name: part}), abs=0.06)
        assert f"{machine.seconds(parts) * 1e3:.2f} ms" in say


@pytest.mark.skipif(BROWSER is None, reason="no browser is installed")
def test_what_it_says_is_the_packages():
    def told(page) -> tuple[float, float, int]:
        said = page.inner_text(".say").replace(",", "")
        ms, each = re.match(
            r"([\d.]+) ms a step: ([\d.]+) tokens a second for a text", said
        ).groups()
        return float(ms), float(each), int(re.search(r"(\d+)% of that cache", said)[1])

    with start() as browser:
        page = browser.new_page()
        page.set_content(shown())
        for texts, context, model, weights in ((4, 11, 1, 1), (0, 7, 2, 3), (9, 17, 1, 0)):
            for name, value in (("texts", texts), ("context", context)):
                page.locator(f"[data-is={name}]").evaluate(SET, value)
            page.locator("[data-is=model]").select_option(str(model))
            page.locator("[data-is=weights]").select_option(str(weights))
            sizes = {"batch": 2**texts, "context": 2**context, "cache_bits": 16}
            config = (None, LLAMA, EIGHT)[model]
            parts = step_cost(config, weight_bits=(32, 16, 8, 4)[weights], **sizes)
            seconds = Machine(*H100).seconds(parts)
            share = 100 * parts["attention"].bytes / sum(part.bytes for part in parts.values())
            ms, each, cache = told(page)
            assert ms == pytest.approx(seconds * 1e3, rel=0.006)
            assert each == pytest.approx(1 / seconds, rel=0.006)
            assert cache == round(share)
        assert "does not fit" in page.inner_text(".say")
        page.locator("[data-is=machine]").select_option(label="your own")
        page.locator("[data-is=bandwidth]").fill("40")
        parts = step_cost(LLAMA, batch=512, context=2**17, weight_bits=32, cache_bits=16)
        seconds = Machine(40e9, 100e9).seconds(parts)
        assert told(page)[0] == pytest.approx(seconds * 1e3, rel=0.006)
        page.locator("[data-is=texts]").focus()
        page.keyboard.press("Home")
        assert "for all" not in page.inner_text(".say")
        assert page.locator("[data-is=texts]").get_attribute("aria-valuetext") == "1 text"
