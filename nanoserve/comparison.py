"""Holding a tensor of ours against HuggingFace's, and the table of the verdicts."""

from dataclasses import dataclass
from html import escape

import torch

from nanoserve.signatures import signature

MADE_UP = "made up"  # stands in the checkpoint's place where there is none


def compare(
    name: str,
    mine: torch.Tensor,
    theirs: torch.Tensor,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> float:
    """The largest difference, if everywhere within `atol + rtol * |theirs|`.

    Shapes and dtypes must agree too. Otherwise AssertionError: what differs and by how much,
    where that starts, and which known mistakes look like it.
    """

    def explain(message: str) -> str:
        head = f"{name} does not match HuggingFace. {message}"
        return "\n".join([head, *signature(mine, theirs, rtol, atol)])

    torch.testing.assert_close(mine, theirs, rtol=rtol, atol=atol, msg=explain)
    if not mine.numel():
        raise AssertionError(f"{name}: there is nothing to compare")
    return (mine.double() - theirs.double()).abs().max().item()


@dataclass
class Row:
    """What is known of one component of one checkpoint."""

    checkpoint: str
    component: str
    tensors: int = 0
    error: float = 0.0
    identical: int = 0
    bar: float = 1e-5  # the widest tolerance that any of its tensors was given

    def cells(self) -> tuple[str, ...]:
        """The row as text, what varies between machines last."""
        if self.identical == self.tensors:
            error = "error 0, bit-identical"
        else:
            error = f"error {self.error:.1e}"
        noun = "tensor" if self.tensors == 1 else "tensors"
        component = self.component + (f", bar {self.bar:g}" if self.bar > 1e-5 else "")
        return self.checkpoint, component, f"{self.tensors} {noun}", "match", error


class Scoreboard:
    """Comparisons gathered by checkpoint and component into a table. A failed one raises."""

    def __init__(self, title: str):
        self.title, self.rows = title, {}

    def compare(
        self,
        ref,
        component: str,
        name: str,
        mine: torch.Tensor,
        theirs: torch.Tensor | None = None,
        **tolerances: float,
    ) -> None:
        """Hold `mine` against `theirs`; by default, what Reference `ref` calls `name`.

        Where `ref` is None the tensors come from no checkpoint, and `theirs` must be given.
        """
        checkpoint = MADE_UP if ref is None else ref.path.name
        theirs = ref.outputs[name] if theirs is None else theirs
        error = compare(f"{checkpoint}, {name} ({component})", mine, theirs, **tolerances)
        key = checkpoint, component
        row = self.rows.setdefault(key, Row(*key))
        row.tensors += 1
        row.error = max(row.error, error)
        row.identical += torch.equal(mine, theirs)
        row.bar = max([row.bar, *tolerances.values()])

    def table(self) -> list[tuple[str, ...]]:
        """The rows as text, those of checkpoints first."""
        rows = sorted(self.rows.values(), key=lambda row: row.checkpoint == MADE_UP)
        return [row.cells() for row in rows]

    def verdict(self) -> str:
        """One line: what has been shown. AssertionError where nothing was compared."""
        if not self.rows:
            raise AssertionError(f"{self.title}: there is nothing to compare")
        rows = self.rows.values()
        loose = sum(row.tensors for row in rows if row.bar > 1e-5)
        strict = sum(row.tensors for row in rows) - loose
        more = f", {loose} more within the bar of their row" if loose else ""
        return f"{self.title}: {strict} tensors match HuggingFace within 1e-5{more}"

    def __repr__(self) -> str:
        table = self.table()
        widths = [max(len(cells[i]) for cells in table) for i in range(4)] if table else []
        lines = ["  ".join([*map(str.ljust, cells[:4], widths), cells[4]]) for cells in table]
        return "\n".join([self.verdict(), *lines])

    def _repr_html_(self) -> str:
        heads = ("checkpoint", "component", "compared", "verdict", "largest difference")
        head = "".join(f"<th>{name}</th>" for name in heads)
        body = ""
        for row in self.table():
            *cells, verdict, error = map(escape, row)
            texts = "".join(f"<td>{cell}</td>" for cell in cells)
            body += f'<tr>{texts}<td class="pass">{verdict}</td><td>{error}</td></tr>\n'
        return (
            f'<div class="nanoserve-scoreboard"><p><strong>{escape(self.verdict())}</strong></p>'
            f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>"
        )
