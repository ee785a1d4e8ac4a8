"""Whom to ask instead of a model, as configured: where its context is too small, or where a content filter refuses. Pure.

Chains name models; whether one of them is able is decided elsewhere, by the same bars as for every candidate.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from schemas.ledger import FailureClass
from schemas.messages import Fallback
from services.router.offers import Option

IsAble = Callable[[Option], bool]
Chain = tuple[str, FailureClass, list[Option]]


def chains(chosen: Iterable[Option], options: Sequence[Option], is_able: IsAble) -> Iterator[Chain]:
    """The able models to ask instead, of each chosen model and for each of its two failures, where there are any."""
    for option in chosen:
        offer = option.offer
        if not offer.on_context_length and not offer.on_content_filtered:
            continue
        for failure in (FailureClass.CONTEXT_LENGTH, FailureClass.CONTENT_FILTERED):
            able = chain(option, failure, options, is_able)
            if able:
                yield offer.model, failure, able


def chain(instead_of: Option, failure: FailureClass, options: Sequence[Option], is_able: IsAble) -> list[Option]:
    """The able models of a configured chain, in its order.

    Where a context was too small, the estimate was wrong, so only a bigger one will do, whatever the estimate says.
    """
    offer, is_too_small = instead_of.offer, failure is FailureClass.CONTEXT_LENGTH
    names = offer.on_context_length if is_too_small else offer.on_content_filtered
    context_tokens = offer.context_tokens if is_too_small else 0
    known = {option.offer.model: option for option in options} if names else {}
    return [
        option
        for name in dict.fromkeys(names)
        if name != offer.model
        and (option := known.get(name)) is not None
        and option.offer.context_tokens > context_tokens
        and is_able(option)
    ]


def sentence(fallback: Fallback) -> str:
    """For the plan's rule."""
    when = "its context is too small" if fallback.failure is FailureClass.CONTEXT_LENGTH else "a content filter refuses"
    return f"; after {fallback.model}, where {when}: {', '.join(candidate.model for candidate in fallback.candidates)}"
