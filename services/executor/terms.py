"""How one call may be made: the bounds that the walk of a plan sets and the provider's client keeps."""

from collections.abc import Callable
from typing import NamedTuple


class Terms(NamedTuple):
    """`timeout_ms` bounds the whole call. A stream must begin within `first_token_ms`, and never be silent for `stall_ms`."""

    attempt_id: str
    tokens_out_max: int
    timeout_ms: int
    streamed: bool = False
    first_token_ms: int = 10_000
    stall_ms: int = 10_000
    on_first_token: Callable[[], None] | None = None
