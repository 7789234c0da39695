"""The judge, judged: what the checks share. tests/mutants/checks/common.toml has bugs for it."""

from functools import partial

import torch
from judging import DEFAULTS, complaint, defaults
from torch import nn

from nanoserve.checks.common import agree, alike, attempt, holds, must_raise, stack
from nanoserve.checks.loader_memory import check_filled
from nanoserve.checks.made import empty_model
from nanoserve.config import ModelConfig

NAN = float("nan")
UNEQUAL = (
    (1, True),
    (1, 1.0),
    (None, False),
    ("a", "b"),
    ([1], (1,)),
    ([1, 2], [2, 1]),
    ([1], [1, 2]),
    ({1}, {1, 2}),
    ({1, "a"}, {1}),
    ({1: 2}, {1: 3}),
    ({1: 2}, {}),
    ({1: [2]}, {1: []}),
    (NAN, NAN),
)


def unwritten(*inputs, **named):
    """A blank of a practice notebook."""
    raise NotImplementedError("write this piece")


def refuse(error: Exception):
    """Raise it."""
    raise error


def last_to_zero(x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """Change one value and no more."""
    x.view(-1)[-1] = 0
    return x


def test_agree_holds_type_and_value():
    for mine, wanted in UNEQUAL:
        complaint(agree, "x", mine, wanted)
        complaint(agree, "x", wanted, mine)
    for same in (1, "a", {1: [2]}, {3}, None, (1.5,), torch.Size([2]), torch.float32):
        agree("x", same, same)


def test_agree_shows_where_they_part():
    text = complaint(agree, "the head", {"a": 1, "b": [2]}, {"a": 1, "c": 3})
    assert text == "the head: nanoserve has {'b': [2]}, wanted {'c': 3}"
    assert complaint(agree, "x", {1, 2}, {2, "3"}) == "x: nanoserve has [1], wanted ['3']"
    assert len(complaint(agree, "x", "a" * 9999, "b" * 9999)) < 1000


def test_holds_wants_a_yes():
    holds("it must", True)
    assert complaint(holds, "it must", False) == "it must. It is not so."
    assert complaint(holds, "it must", False, "it did") == "it must. It is not so: it did"
    for answer in (1, 0, None, "yes", torch.tensor(True)):
        complaint(holds, "it must", answer, error=TypeError)


def test_attempt_hands_on_what_it_is_given_and_gives_what_comes():
    assert attempt("sum", torch.add, torch.ones(2), other=torch.ones(2)).tolist() == [2, 2]
    assert attempt("none", print, end="") is None


def test_attempt_turns_errors_into_mismatches():
    for error in (ValueError("no row"), KeyError("no row"), RuntimeError("no row")):
        text = complaint(attempt, "the table", refuse, error)
        assert text.startswith("the table: ") and "no row" in text
    assert complaint(attempt, "x", unwritten, error=NotImplementedError) == "write this piece"


def test_attempt_notices_an_input_that_was_changed():
    whole = torch.Tensor.zero_, torch.Tensor.t_, lambda x: x.unsqueeze_(0), last_to_zero
    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.bool):
        for change in whole:
            x = torch.ones(2, 3).to(dtype)
            assert "input 1" in complaint(attempt, "the MLP", change, x)
        named = partial(complaint, attempt, "the MLP", last_to_zero, scale=2.0)
        text = named(x=torch.ones(2, 3).to(dtype))
        assert text.startswith("the MLP: ") and "(x)" in text
        second = partial(lambda scale, x: last_to_zero(x))
        assert "input 2" in complaint(attempt, "the MLP", second, 2.0, torch.ones(2).to(dtype))
    assert "changed" in complaint(attempt, "x", last_to_zero, torch.ones(3, requires_grad=True) * 1)
    assert "changed" in complaint(attempt, "x", lambda x: x.fill_(NAN), torch.ones(3))


def test_attempt_takes_what_it_need_not_look_at():
    for x in (torch.full((2,), NAN), torch.ones(2, device="meta"), torch.ones(0)):
        assert attempt("x", lambda x: x, x) is x
    assert "changed" in complaint(attempt, "x", torch.Tensor.t_, torch.ones(2, 3, device="meta"))


def test_must_raise_wants_that_error_and_gives_its_message():
    assert must_raise(ValueError, "x", refuse, ValueError("rope_theta is 0")) == "rope_theta is 0"
    assert must_raise(ValueError, "x", refuse, UnicodeError("of its kind")) == "of its kind"
    text = complaint(must_raise, ValueError, "theta 0", refuse, TypeError("other"))
    assert text.startswith("theta 0: ValueError is wanted") and "TypeError('other')" in text
    text = complaint(must_raise, ValueError, "theta 0", abs, -1)
    assert text == "theta 0: ValueError is wanted, and nothing was raised"
    complaint(must_raise, ValueError, "x", unwritten, 1, a=2, error=NotImplementedError)


def test_alike_is_to_the_bit():
    x = torch.tensor([[1.0, NAN, -2.0]])
    assert alike(x, x.clone()) and alike(x.bfloat16(), x.bfloat16())
    others = (
        x.nan_to_num(0.0),
        x.nan_to_num(0.0) + torch.tensor([[NAN, 0.0, 0.0]]),
        x * (1 + 2e-7),
        x + torch.tensor([[0.0, 0.0, NAN]]),
        x[0],
        x[:, :1],
        x.expand(2, -1),
        x.double(),
        x.to("meta"),
    )
    for other in others:
        assert not alike(x, other) and not alike(other, x)
    ids = torch.tensor([2**53 + 1, 4])
    assert alike(ids, ids.clone()) and not alike(ids, ids - 1)
    assert alike(ids > 5, ids > 5) and not alike(ids > 5, ids > 3)
    assert alike(x.to("meta"), x.to("meta"))


def test_stack_makes_each_block_anew():
    config = ModelConfig.from_dict(
        {
            "model_type": "llama",
            "vocab_size": 9,
            "hidden_size": 4,
            "intermediate_size": 8,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "rms_norm_eps": 1e-5,
        }
    )
    model = stack(config, mlp=lambda: nn.Linear(2, 2, bias=False), norm=lambda: nn.LayerNorm(2))
    names = [f"blocks.{i}.{name}" for i in range(3) for name in ("mlp.weight", "norm.weight")]
    assert set(names) < set(model.state_dict())
    assert len({p.data_ptr() for p in model.parameters()}) == 3 * 3
    assert not any(p.requires_grad for p in model.parameters())


def test_check_filled_tells_what_was_never_copied():
    model = empty_model({"head": (3, 2), "norm": (2,)}, value=1.0)
    check_filled("here", model)
    model.head.data[1, 0] = NAN
    check_filled("here", model)  # one number of a row is for the comparison
    model.head.data[1:] = NAN
    text = complaint(check_filled, "here", model)
    assert "nothing was copied into 2 of 3 rows of head, row 1 the first" in text
    model.head.data[:] = NAN
    assert "here: nothing was copied into head," in complaint(check_filled, "here", model)


def test_nothing_depends_on_torchs_defaults():
    x = torch.tensor([1.0, 2.0, 3.0])
    for dtype, device in DEFAULTS:
        with defaults(dtype, device):
            assert attempt("x", torch.neg, x).tolist() == [-1, -2, -3]
            assert "changed" in complaint(attempt, "x", last_to_zero, x.clone())
            assert alike(x, x.clone()) and not alike(x, x * (1 + 2e-7))
