"""Reads a reader's answer in whatever form it was given: for book/answers.py, which lists them."""

import ast
import re
from collections.abc import Iterable
from typing import Any

YES, NO = ("true", "yes", "1"), ("false", "no", "0")
NOTHING = ("none", "nothing", "neither", "")


class Refused(ValueError):
    """An answer that cannot be read as one of the wanted kind; says what is wanted."""


def taken(answer: Any, like: Any) -> Any:
    """The answer in the form that `like` has. Refused where it cannot be read so."""
    if hasattr(answer, "tolist"):  # a tensor or array, of one value or more
        answer = answer.tolist()
    if isinstance(answer, list | tuple) and len(answer) == 1 and not is_many(like):
        answer = answer[0]
    if isinstance(like, bool):
        text = str(answer).strip().casefold()
        if text in YES + NO:
            return text in YES
        raise Refused("the answer is True or False")
    if isinstance(like, int | float):
        return number(answer)
    if is_letters(like):
        return letters(answer)
    if isinstance(like, str):
        if isinstance(answer, str):
            return " ".join(answer.casefold().split())
        raise Refused("the answer is a word or a text, in quotation marks")
    if isinstance(like, dict):
        if not isinstance(answer, dict) or answer.keys() != like.keys():
            raise Refused(f"the answer is a dict with the keys {', '.join(map(repr, like))}")
        return answer
    members = members_of(answer, like)
    if isinstance(like, set | frozenset):
        return {taken(m, next(iter(like), 0)) for m in members}
    if len(members) != len(like):
        raise Refused(f"the answer has {len(like)} parts, and this has {len(members)}")
    return [taken(m, wanted) for m, wanted in zip(members, like, strict=True)]


def is_many(value: Any) -> bool:
    """Whether an answer has parts."""
    return isinstance(value, list | tuple | set | frozenset | dict) or is_letters(value)


def is_letters(value: Any) -> bool:
    """Whether a text names choices, such as "ACD": capitals in order, each once."""
    return isinstance(value, str) and value.isupper() and list(value) == sorted(set(value))


def letters(answer: Any) -> set[str]:
    """The letters of an answer in any form."""
    if isinstance(answer, str):
        text = "" if answer.strip().casefold() in NOTHING else re.sub(r"\band\b", " ", answer)
    elif isinstance(answer, list | tuple | set | frozenset | dict):
        text = " ".join(map(str, answer))
    else:
        raise Refused('the answer is letters, such as "AB"')
    return set(re.findall("[A-Z]", text.upper()))


def number(answer: Any) -> float:
    """The number that an answer is or begins with."""
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        return answer
    text = str(answer).strip().replace(",", "").replace("_", "")
    found = re.match(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", text, re.IGNORECASE)
    if isinstance(answer, bool) or not found:
        raise Refused("the answer is a number")
    return float(found[0])


def members_of(answer: Any, like: Iterable) -> list:
    """The parts of an answer: a list, a set, or a text of them."""
    if isinstance(answer, str):
        if answer.strip().casefold() in NOTHING:
            return []
        if all(isinstance(m, int | float) and not isinstance(m, bool) for m in like):
            return re.findall(r"[-+]?\d+\.?\d*", answer)
        try:
            answer = ast.literal_eval(answer)
        except (SyntaxError, ValueError):
            # "rope_theta 10,000" is one name: a comma parts names where a blank follows.
            answer = [part for part in re.split(r"[;\n]|,\s|\band\b", answer) if part.strip()]
    if isinstance(answer, list | tuple | set | frozenset | dict | range):
        return list(answer)
    return [answer]
