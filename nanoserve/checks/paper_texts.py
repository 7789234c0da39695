"""Texts of paper: a token's keys and values are the hash of all up to it, and say the next one."""

from collections.abc import Sequence

from nanoserve.sampling import SamplingParams

LETTERS = 6  # ids of the paper's vocabulary: few, so that stops are met and texts look alike


def known_by(
    tokens: Sequence[int], chain: Sequence[int] = (), salt: str | None = None
) -> list[int]:
    """A hash of each prefix; `chain` are those of the first ones. A salt is a number's text."""
    chain = list(chain)
    for token in tokens[len(chain) :]:
        chain.append(hash((chain[-1] if chain else int(salt or 0), token)))
    return chain


def text_of(
    prompt: Sequence[int], params: SamplingParams, salt: str | None = None
) -> tuple[list[int], str]:
    """The ids that a prompt must be answered with, and why they end there."""
    chain, output = known_by(prompt, salt=salt), []
    while True:
        output.append(chain[-1] // 7 % LETTERS)
        chain.append(hash((chain[-1], output[-1])))
        if output[-1] in params.stop_token_ids:
            return output, "stop"
        if len(output) == params.max_tokens:
            return output, "length"
