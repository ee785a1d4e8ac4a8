"""Turns an answer's certainty into log probabilities of its tokens: plausible, seeded, lower where the answer is wrong. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

from services.simulator.call import Answer, Call
from services.simulator.draws import draw, seed_of

_OTHERS = (" the", " a", " of", " and", " to", " in", " is", " it", " that", " for", " on", " with", " as", " by", " at",
           " from", " or", " an", " be", " not")  # fmt: skip
_LEAST = 1e-6


@dataclass(frozen=True, slots=True)
class Token:
    """One token with its natural logarithm of probability, and the alternatives, the likeliest (itself) first."""

    text: str
    logprob: float
    others: tuple[tuple[str, float], ...]


def tokens_of(call: Call, said: Answer, pieces: Sequence[str]) -> list[Token]:
    """One token per piece. The mean of the probabilities is the answer's certainty."""
    seed = seed_of("logprobs", call.model.name, call.prefix, call.prompt, call.seed)
    return [_token(seed, at, piece, said.certainty, call.logprobs or 0) for at, piece in enumerate(pieces)]


def _token(seed: int, at: int, text: str, certainty: float, alternatives: int) -> Token:
    likely = max(_LEAST, 1 - 2 * (1 - certainty) * draw(seed, at))
    others = [(text, _rounded(likely))]
    rest = 1 - likely
    for step in range(1, alternatives):
        rest /= 2
        others.append((_OTHERS[(at + step) % len(_OTHERS)], _rounded(max(_LEAST, min(rest, likely)))))
    return Token(text, _rounded(likely), tuple(others[:alternatives]))


def _rounded(probability: float) -> float:
    return round(log(probability), 6)
