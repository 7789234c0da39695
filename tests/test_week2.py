"""The table that closes Week 2 looks for rows that bench.py gives, by their titles."""

import ast
import json
import subprocess
import sys
from pathlib import Path

BOOK = Path(__file__).resolve().parent.parent / "book"


# In a process of its own: bench imports torch's timers, and these want the distutils that others
# may have replaced.
TITLES = """
import json, sys
from bench import TEXTS, rows
measured, more = json.load(sys.stdin)
more["batch"] = {"ours": {str(n): [1.0] for n in TEXTS}}
print(json.dumps([title for title, *_ in rows(measured | more)]))
"""


def test_every_row_of_the_table_is_measured_by_a_part():
    cells = json.loads((BOOK / "week2.ipynb").read_text("utf-8"))["cells"]
    (source,) = ("".join(c["source"]) for c in cells if "wanted = {" in "".join(c["source"]))
    (table,) = (
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "wanted"
    )
    titles = set(eval(compile(ast.Expression(table), "week2.ipynb", "eval")))
    # Parts that the committed file may lack yet.
    one = {"ours": {"token": [1.0], "anonymous": [1.0]}}
    more = {"cache": {"step": one, "memory": one}}
    measured = json.loads((BOOK / "bench.json").read_text("utf-8"))
    told = subprocess.run(
        [sys.executable, "-c", TITLES],
        cwd=BOOK,
        input=json.dumps([measured, more]),
        capture_output=True,
        text=True,
        check=True,
    )
    given = set(json.loads(told.stdout))
    assert len(titles) == 10 and titles <= given, titles - given
