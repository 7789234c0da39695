"""Holding a tensor of ours against HuggingFace's, and the table of the verdicts."""

from dataclasses import dataclass
from html import escape

import torch

from nanoserve.signatures import Lookalikes, recorded, signature

MADE_UP = "made up"  # stands in the checkpoint's place where there is none


def compare(
    name: str,
    mine: torch.Tensor,
    theirs: torch.Tensor,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    lookalikes: Lookalikes | None = None,
) -> float:
    """The largest difference, if everywhere within `atol + rtol * |theirs|`.

    Shapes and dtypes must agree too, and there must be something to compare. Otherwise
    AssertionError: what differs and by how much, where that starts, and which known mistakes look
    like it, first of all one of the `lookalikes`.

    Every value counts, each at its own size. Integers and bools must be equal, infinities too,
    and NaN matches nothing, NaN neither: where NaN must stay NaN, a check asks for that. Devices
    must agree, and what has no values (on the meta device) matches nothing. The inputs stay as
    they are, and torch's default dtype and device play no part.
    """
    if not isinstance(mine, torch.Tensor):
        raise AssertionError(f"{name}: nanoserve gives {mine!r:.200}, and a tensor is wanted")
    if mine.is_meta or theirs.is_meta:
        raise AssertionError(f"{name}: on the meta device there are no values to compare")
    if not theirs.is_floating_point():
        rtol = atol = 0.0

    def explain(message: str) -> str:
        head = f"{name} does not match HuggingFace. {message}"
        return "\n".join([head, *signature(mine, theirs, rtol, atol, lookalikes)])

    torch.testing.assert_close(mine, theirs, rtol=rtol, atol=atol, msg=explain)
    if not mine.numel():
        raise AssertionError(f"{name}: there is nothing to compare")
    off = (mine.double() - theirs.double()).abs()
    return off.nan_to_num(0.0).max().item()  # an infinity less itself is NaN


@dataclass
class Row:
    """What is known of one component of one checkpoint."""

    checkpoint: str
    component: str
    tensors: int = 0
    error: float = 0.0
    identical: int = 0
    bar: float = 0.0  # the widest tolerance that any of its tensors was given

    def label(self) -> str:
        """The component, and the bar that it was held to where that is wider than 1e-5."""
        return self.component + (f", bar {self.bar:g} (1 + |x|)" if self.bar > 1e-5 else "")

    def off(self) -> str:
        """How far it is off: the one thing here that depends on the machine."""
        same = self.identical == self.tensors
        return "bit-identical" if same else f"error {self.error:.1e}"


class Scoreboard:
    """Comparisons gathered by checkpoint and component into a table."""

    def __init__(self, title: str):
        self.title, self.rows = title, {}

    def compare(
        self,
        ref,
        component: str,
        name: str,
        mine: torch.Tensor,
        theirs: torch.Tensor | None = None,
        lookalikes: Lookalikes | None = None,
        **tolerances: float,
    ) -> None:
        """Hold `mine` against `theirs`; by default, what Reference `ref` calls `name`.

        `lookalikes` are what known mistakes give; what `ref` has recorded is tried after them.

        Where `ref` is a checkpoint's folder nothing is on record of it, and where it is None the
        tensors come from no checkpoint: `theirs` must be given then. The
        `tolerances` are rtol and atol, 1e-5 if not given. AssertionError as from `compare`.
        """
        checkpoint = MADE_UP if ref is None else getattr(ref, "path", ref).name
        theirs = ref.outputs[name] if theirs is None else theirs
        on_record = recorded(ref, name) if hasattr(ref, "outputs") else {}
        lookalikes = {**(lookalikes or {}), **on_record}
        name = f"{checkpoint}, {name} ({component})"
        error = compare(name, mine, theirs, lookalikes=lookalikes, **tolerances)
        key = checkpoint, component
        row = self.rows.setdefault(key, Row(*key))
        row.tensors += 1
        row.error = max(row.error, error)
        row.identical += torch.equal(mine, theirs)
        row.bar = max(row.bar, *({"rtol": 1e-5, "atol": 1e-5} | tolerances).values())

    def _in_order(self) -> list[Row]:
        """The rows, those of checkpoints first."""
        return sorted(self.rows.values(), key=lambda row: row.checkpoint == MADE_UP)

    def verdict(self) -> str:
        """One line: what has been shown. AssertionError where nothing was compared."""
        if not self.rows:
            raise AssertionError(f"{self.title}: there is nothing to compare")
        rows = self.rows.values()
        loose = sum(row.tensors for row in rows if row.bar > 1e-5)
        strict = sum(row.tensors for row in rows) - loose
        how = "within 1e-5" if any(row.bar for row in rows) else "to the bit"
        more = f", {loose:,} more within the bar of their row" if loose else ""
        return f"{self.title}: {strict:,} tensors match HuggingFace {how}{more}"

    def __repr__(self) -> str:
        """A line for each checkpoint and component."""
        table = [
            (row.checkpoint, row.label(), f"{row.tensors:>4} match", row.off())
            for row in self._in_order()
        ]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)][:3]
        lines = ["  ".join([*map(str.ljust, cells, widths), cells[3]]) for cells in table]
        return "\n".join([self.verdict(), *lines])

    def _repr_html_(self) -> str:
        """A row for each component, a column for each checkpoint."""
        rows = self._in_order()
        checkpoints = list(dict.fromkeys(row.checkpoint for row in rows))
        cells = {(row.label(), row.checkpoint): row for row in rows}
        head = "".join(f"<th>{escape(name)}</th>" for name in ("component", *checkpoints))
        body = ""
        for label in dict.fromkeys(row.label() for row in rows):
            body += f'<tr><th scope="row">{escape(label)}</th>'
            for checkpoint in checkpoints:
                row = cells.get((label, checkpoint))
                verdict = f'<span class="pass">{row.tensors} match</span>' if row else ""
                off = f", <span>{row.off()}</span>" if row else ""
                body += f"<td>{verdict}{off}</td>"
            body += "</tr>\n"
        return (
            f'<div class="nanoserve-scoreboard"><p><strong>{escape(self.verdict())}</strong></p>'
            f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>"
        )
