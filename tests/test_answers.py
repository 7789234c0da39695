"""book/answers.py: what it takes for an answer, and what it says of a wrong one."""

import pytest
import torch
from answers import check, check_function, verdict
from exercises import nucleus, odd_width, slow_clocks, small_margins, survivors

TAKEN = {
    "a number as text": ("14", 14),
    "a number with its unit": (" 14 GiB", 14.0),
    "thousands": ("131,072", 131_072),
    "a tensor of one value": (torch.tensor(3), 3),
    "nearly": (99.2, 100, 0.01),
    "yes": ("Yes", True),
    "false": (False, False),
    "letters with commas": ("A, C, D", "ACD"),
    "letters with and": ("a, d and c", "ACD"),
    "letters in a list": (["c", "A", "D"], "ACD"),
    "letters in a set": ({"A", "C", "D"}, "ACD"),
    "one letter": ("b", "B"),
    "a word": (" Values ", "values"),
    "a set as a list": ([4, 3], {3, 4}),
    "a set as text": ("3 and 4", {3, 4}),
    "one of a set": (3, {3}),
    "names as text": ("rope_theta 10,000, B", {"b", "rope_theta 10,000"}),
    "a pair as text": ("(1, 5)", (1, 5)),
    "a pair as a list": ([1, "5"], (1, 5)),
    "a tuple with a set": ((0, [11, 28]), (0, {11, 28})),
    "a dict": ({"a": "Names", "b": "2"}, {"a": "names", "b": 2}),
    "none of them": ("none", set()),
    "by a function": ((1, 5), lambda pair: pair[0] < pair[1]),
}
REFUSED = {
    "another number": (13, 14),
    "no number": ("many", 14),
    "True is no number": (True, 1),
    "outside the margin": (98, 100, 0.01),
    "yes for no": (True, False),
    "no bool": ("perhaps", True),
    "a letter too many": ("A, B, C, D", "ACD"),
    "a letter too few": ("AC", "ACD"),
    "no letters": (3, "ACD"),
    "another word": ("shapes", "values"),
    "another order": ((5, 1), (1, 5)),
    "too long": ((1, 5, 1), (1, 5)),
    "part of a set": ([3], {3, 4}),
    "another dict": ({"a": "names"}, {"a": "names", "b": 2}),
    "half a dict": ({"a": "names", "b": None}, {"a": "names", "b": 2}),
    "by a function": ((5, 1), lambda pair: pair[0] < pair[1]),
    "what the function cannot take": (5, lambda pair: pair[0] < pair[1]),
    "nothing": (None, 14),
    "nothing in any part": ((None, None), (1, 5)),
}


@pytest.mark.parametrize("case", TAKEN.values(), ids=TAKEN)
def test_the_same_in_another_form_is_right(case):
    assert verdict(*case[:2], within=(*case, 0.0)[2]) == "right"


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_another_answer_is_not(case):
    said = verdict(*case[:2], within=(*case, 0.0)[2])
    assert said.startswith("not yet")
    assert not isinstance(case[1], int) or str(case[1]) not in said or isinstance(case[1], bool)


def test_right_answers_that_their_cells_do_not_show():
    by_hand = {
        "12": slow_clocks(100_000.0, 32, 8_192),
        "11,008": odd_width(4096),
        "0, 5, 6 and 11": survivors(12, 4),
        "3, 0.9": nucleus([0.4, 0.3, 0.2, 0.1], 0.8),
        "2": small_margins(torch.tensor([0.1, 0.25, 0.2, 7.0]), 0.25),
    }
    for answer, exercise in by_hand.items():
        assert verdict(answer, **exercise, within=1e-5) == "right"
        assert verdict("1", **exercise, within=1e-5) != "right"
    assert verdict(20, **slow_clocks(100_000.0, 32, 8_192)) == "not yet: so many do finish a turn"
    assert verdict(10_752, **odd_width(4096)) == "not yet: round up, not down"
    assert "head 1 should read KV head 0" in verdict({0, 1, 5, 6, 11}, **survivors(12, 4))


def test_a_wrong_answer_says_why(capsys):
    wrong = {7: "that counts the keys alone", "0.5": "halve it once"}
    assert verdict("7 GiB", 14, wrong) == "not yet: that counts the keys alone"
    assert verdict(0.5, 14, wrong) == "not yet: halve it once"
    assert verdict(8, 14, wrong, "count again") == "not yet: count again"
    assert verdict(8, 14, lambda a: "too few" if a < 14 else None) == "not yet: too few"
    assert verdict("x", 14, lambda a: "too few" if a < 14 else None) != "right"
    check(15, 14, lambda a: "too few" if a < 14 else None)
    assert capsys.readouterr().out == "not yet\n"


def test_a_member_that_is_astray_says_why():
    wrong = {"B": "B moves the scores", "AC": "look at D again"}
    assert verdict("a, c", "ACD", wrong) == "not yet: look at D again"
    assert verdict("ABCD", "ACD", wrong) == "not yet: B moves the scores"
    assert verdict("CD", "ACD", wrong) == "not yet: right so far, but not all"
    assert verdict([11], {11, 28}, {28: "one takes it back"}) == "not yet: one takes it back"
    assert verdict("11, 28, 3", {11, 28}) == (
        "not yet: all of them are there, and one or more do not belong"
    )
    assert verdict({"a": 1, "b": 3}, {"a": 1, "b": 2}) == "not yet: 1 of 2 are right"


def says(capsys, function, cases, like=None) -> str:
    check_function(function, cases, like)
    return capsys.readouterr().out


def test_a_function_is_run_on_cases(capsys):
    def head_of(h, group):
        """Written by the reader."""
        return h % group

    cases = [((0, 3), 0), ((5, 3), 1, "in the second group")]
    assert says(capsys, lambda h, group: h // group, cases) == "right: 2 cases\n"
    assert says(capsys, head_of, cases) == (
        "not yet: 1 of 2 cases fail\n"
        "  head_of(5, 3), in the second group: gives 2, and should give 1\n"
    )
    many = [(h, 3) for h in range(12)]
    said = says(capsys, head_of, many, like=lambda h, group: h // group).splitlines()
    assert len(said) == 5 and said[-1].startswith("  and ")


def test_a_function_that_is_not_written(capsys):
    def blank(x):
        raise NotImplementedError

    def silent(x):
        x + 1

    assert says(capsys, blank, [((1,), 2)]) == "not yet: blank is yours to write\n"
    assert "silent returns nothing" in says(capsys, silent, [((1,), 2), ((2,), 3)])


def test_an_infinity_is_equal_to_itself(capsys):
    check_function(lambda edges: edges[-1], [(((1.0, float("inf")),), float("inf"))])
    assert capsys.readouterr().out == "right: 1 cases\n"


def test_a_function_of_tensors(capsys):
    x = torch.arange(12.0).view(3, 4)
    cases = [(x,), (-x,)]

    def double(x):
        return 2 * x

    def in_place(x):
        return x.mul_(2)

    def late(x):
        return torch.cat([2 * x[:1], x[1:]])

    assert says(capsys, double, cases, double) == "right: 2 cases\n"
    assert "changes what it is given" in says(capsys, in_place, cases, double)
    said = says(capsys, late, cases, double)
    assert "8 of 12 values differ, first at (1, 0): is 4, and should be 8" in said
    assert "gives shape (4, 3)" in says(capsys, lambda x: 2 * x.T, cases, double)
    assert "gives torch.float64" in says(capsys, lambda x: 2 * x.double(), cases, double)
    assert "raises RuntimeError" in says(capsys, lambda x: x @ x, cases, double)


def test_a_function_that_must_refuse(capsys):
    cases = [((-1,), ValueError), ((4,), 2)]

    def root(x):
        if x < 0:
            raise ValueError("no root")
        return x**0.5

    assert says(capsys, root, cases) == "right: 2 cases\n"
    assert "should raise ValueError" in says(capsys, lambda x: 2, cases)
    assert "raises ZeroDivisionError" in says(capsys, lambda x: 1 / 0, cases)
