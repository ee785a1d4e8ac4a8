"""Turns repeated keys into one request: whoever's claim stands first in the log has won, on every replica alike.

Nothing here is decided by who asked first: only by the order of the log, and its clock. See README.md for the limits.
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from schemas.messages import Claim
from schemas.topology import DAY_MS, IDEMPOTENCY
from shared.broker import Output, Record
from shared.clock import Clock
from shared.codec import decode, encode, headers_for
from shared.errors import BrokerUnavailableError, UndecodableError

log = logging.getLogger(__name__)

KEPT_MS = DAY_MS
"""How long a key stays claimed. The topic keeps claims twice as long, so that no replica sees half of a window."""

CLAIMS_MAX = 100_000
"""Claims in memory, about 40 MB. Beyond it the oldest key is forgotten early, and its repeat claims it anew."""

CLAIM_TIMEOUT_S = 2.5


class _Standing(NamedTuple):
    """The claim that holds a key, and when the log took it."""

    claim: Claim
    logged_ms: int


def digest_of(tenant: str, idempotency_key: str) -> str:
    """Record key of a claim: two tenants never share one, and the caller's key itself is not in the log."""
    return hashlib.sha256(f"{tenant}\0{idempotency_key}".encode()).hexdigest()


class Claims:
    """The claims of the last day, as the log has them. `note` is fed every record of the topic, in order."""

    def __init__(self, write: Callable[[Output], Awaitable[None]], clock: Clock, claims_max: int = CLAIMS_MAX) -> None:
        self._write = write
        self._clock = clock
        self._claims_max = claims_max
        self._standing: OrderedDict[str, _Standing] = OrderedDict()
        self._asked: dict[str, asyncio.Task[Claim]] = {}
        self._read: dict[str, asyncio.Future[Claim]] = {}
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._standing)

    def note(self, record: Record) -> None:
        """One record of the topic: it takes the key unless an earlier claim still holds it."""
        digest = (record.key or b"").decode("ascii", "replace")
        try:
            claim: Claim = decode(IDEMPOTENCY, record.value)
        except UndecodableError as error:
            log.warning("unreadable claim skipped", extra={"offset": record.offset, "error": str(error)})
            return
        held = self._standing.get(digest)
        if held is None or record.timestamp_ms >= held.logged_ms + KEPT_MS:
            self._standing[digest] = held = _Standing(claim, record.timestamp_ms)
            self._standing.move_to_end(digest)
            self._forget(record.timestamp_ms)
        waiting = self._read.pop(digest, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(held.claim)

    async def claim(self, digest: str, proposal: Claim) -> Claim:
        """The claim that holds the key: an earlier one, or this proposal. Raises BrokerUnavailableError in time."""
        held = self._standing.get(digest)
        if held is not None and self._clock.now_ms() < held.logged_ms + KEPT_MS:
            return held.claim
        asked = self._asked.get(digest)
        if asked is None:
            # A task of its own: the caller who asked first may hang up while others wait for the same answer.
            asked = self._asked[digest] = asyncio.create_task(self._settle(digest, proposal))
            asked.add_done_callback(lambda _: self._asked.pop(digest, None))
        return await asyncio.shield(asked)

    async def _settle(self, digest: str, proposal: Claim) -> Claim:
        """Write a claim and wait until the log has given one back for the key."""
        read = self._read[digest] = asyncio.get_running_loop().create_future()
        value = encode(IDEMPOTENCY, proposal)
        output = Output(IDEMPOTENCY.name, digest.encode(), value, headers_for(IDEMPOTENCY, "intake", None))
        try:
            async with asyncio.timeout(CLAIM_TIMEOUT_S):
                await self._write(output)
                winner: Claim = await read
                return winner
        except TimeoutError:
            raise BrokerUnavailableError("the claim of an idempotency key did not come back in time") from None
        finally:
            if self._read.get(digest) is read:
                del self._read[digest]

    def _forget(self, now_ms: int) -> None:
        """Drop what is over, and the oldest when there are too many."""
        while self._standing:
            oldest = next(iter(self._standing.values()))
            over = oldest.logged_ms + KEPT_MS <= now_ms
            if not over and len(self._standing) <= self._claims_max:
                return
            self._standing.popitem(last=False)
            self.forgotten += not over
