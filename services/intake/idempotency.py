"""Turns repeated keys into one request: whoever's claim stands first in the log has won, on every replica alike.

Nothing here is decided by who asked first: only by the order of the log, and its clock. See README.md for the limits.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from itertools import islice

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
"""Claims in memory, about 30 MB. Beyond an eighth more the oldest keys are forgotten early, and their repeats claim them anew."""

CLAIM_TIMEOUT_S = 2.5


def digest_of(tenant: str, idempotency_key: str) -> str:
    """Record key of a claim: two tenants never share one, and the caller's key itself is not in the log."""
    return hashlib.sha256(f"{tenant}\0{idempotency_key}".encode()).hexdigest()


class Claims:
    """The claims of the last day, as the log has them. `note` is fed every record of the topic, in order."""

    def __init__(self, write: Callable[[Output], Awaitable[None]], clock: Clock, claims_max: int = CLAIMS_MAX) -> None:
        self._write = write
        self._clock = clock
        self._claims_max = claims_max
        self._standing: dict[bytes, bytes] = {}   # oldest first, packed
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
        held = self._held(digest, record.timestamp_ms)
        if held is None:
            held = claim
            self._standing.pop(_place_of(digest), None)   # what is over must not keep its place among the oldest
            self._standing[_place_of(digest)] = _packed(claim, record.timestamp_ms)
            self._forget(record.timestamp_ms)
        waiting = self._read.pop(digest, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(held)

    def holds(self, digest: str) -> bool:
        """Whether the key stands for a request already, as far as this replica knows."""
        return self._held(digest, self._clock.now_ms()) is not None

    async def claim(self, digest: str, proposal: Claim) -> Claim:
        """The claim that holds the key: an earlier one, or this proposal. Raises BrokerUnavailableError in time."""
        held = self._held(digest, self._clock.now_ms())
        if held is not None:
            return held
        asked = self._asked.get(digest)
        if asked is None:
            # A task of its own: the caller who asked first may hang up while others wait for the same answer.
            asked = self._asked[digest] = asyncio.create_task(self._settle(digest, proposal))
            asked.add_done_callback(lambda _: self._asked.pop(digest, None))
        return await asyncio.shield(asked)

    def _held(self, digest: str, now_ms: int) -> Claim | None:
        """The claim that holds a key now."""
        packed = self._standing.get(_place_of(digest))
        return None if packed is None or now_ms >= _logged_ms(packed) + KEPT_MS else _unpacked(packed)

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
        """When there are too many: drop what is over, then the oldest. Many at once, into a new dict: the first entry of one is
        looked for behind all that were deleted, and an OrderedDict takes 85 bytes more for each."""
        if len(self._standing) <= self._claims_max + self._claims_max // 8:
            return
        kept = {place: packed for place, packed in self._standing.items() if now_ms < _logged_ms(packed) + KEPT_MS}
        too_many = max(len(kept) - self._claims_max, 0)
        self._standing = dict(islice(kept.items(), too_many, None))
        self.forgotten += too_many


# Half of a digest is enough to tell keys apart, and a claim's text takes a fifth of what the object takes -----------------


def _place_of(digest: str) -> bytes:
    return digest[:32].encode()


def _packed(claim: Claim, logged_ms: int) -> bytes:
    return f"{logged_ms} {claim.claimed_ms} {claim.request_id} {claim.fingerprint}".encode()


def _logged_ms(packed: bytes) -> int:
    return int(packed[: packed.index(b" ")])


def _unpacked(packed: bytes) -> Claim:
    _, claimed_ms, request_id, fingerprint = packed.decode().split(" ", 3)
    return Claim(request_id=request_id, fingerprint=fingerprint, claimed_ms=int(claimed_ms))
