"""What one call of a provider yielded, as an adapter read it. Never holds the provider's raw body."""

from typing import NamedTuple

from schemas.fleet import RateLimits
from schemas.ledger import FailureClass, Usage
from schemas.messages import Answer


class Reply(NamedTuple):
    """An answer or a class of failure.

    `status` is 0 when no status line came. `sent` is false when surely no request reached the provider. `wait_ms` is how
    long the provider asked to be left alone (Retry-After and its kin), None when it did not say.
    """

    status: int = 0
    answer: Answer | None = None
    failure: FailureClass | None = None
    usage: Usage | None = None
    model_served: str = ""
    provider_request_id: str = ""
    sent: bool = True
    streamed: bool = False
    first_token_ms: float | None = None
    wait_ms: int | None = None
    limits: RateLimits | None = None
    tokens_seen: int = 0
    """Of a stream that broke off without a usage: what came of the answer, estimated."""
    said: str = ""
    """The provider's reason for refusing, for the caller's eyes: its own words, cut short; never for logs."""
