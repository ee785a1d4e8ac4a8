"""A replica's part of a backend's limits per minute, on requests and on tokens: when the next call may go.

Pure: time is passed in, in epoch milliseconds. It counts in integers, so that nothing is lost in a day of small refills.
"""

BURST_MS = 5_000
"""What may go at once after a pause. Providers refill their own buckets all the time and punish bursts of a whole minute."""

_MINUTE_MS = 60_000


class _Bucket:
    """A token bucket (RFC 2697's, but in debt after a take larger than itself: even one call may be). One unit is `scale` of
    its own small change, of which `per_minute` come back every millisecond. It never holds more than `capacity`."""

    __slots__ = ("_at_ms", "_level", "capacity", "executors", "per_minute", "scale")

    def __init__(self, per_minute: int, executors: int) -> None:
        self._shape(per_minute, executors)
        self._level = min(self.scale, self.capacity)   # one call: a replica that has just begun does not know of the others
        self._at_ms = 0      # its time begins when it is first asked

    def _shape(self, per_minute: int, executors: int) -> None:
        self.per_minute, self.executors = per_minute, executors
        self.scale = (_MINUTE_MS + BURST_MS) * executors   # so that a minute's refill and a burst make the limit together
        self.capacity = per_minute * BURST_MS

    def reshape(self, per_minute: int, executors: int) -> None:
        """A new limit: as full as before in proportion; a debt stays what it is."""
        if (per_minute, executors) == (self.per_minute, self.executors):
            return
        capacity, scale = self.capacity, self.scale
        self._shape(per_minute, executors)
        self._level = self._level * self.capacity // capacity if self._level > 0 else self._level * self.scale // scale

    def _refill(self, now_ms: int) -> None:
        if not self._at_ms:
            self._at_ms = now_ms
        elif now_ms > self._at_ms:
            self._level = min(self.capacity, self._level + (now_ms - self._at_ms) * self.per_minute)
            self._at_ms = now_ms

    def ready_at_ms(self, units: int, now_ms: int) -> int:
        self._refill(now_ms)
        missing = min(units * self.scale, self.capacity) - self._level
        return now_ms if missing <= 0 else self._at_ms + -(-missing // self.per_minute)

    def take(self, units: int, now_ms: int) -> None:
        self._refill(now_ms)
        self._level -= units * self.scale

    def give_back(self, units: int, now_ms: int) -> None:
        self._refill(now_ms)
        self._level = min(self.capacity, self._level + units * self.scale)


class Quota:
    """Token buckets for requests and tokens. Each replica has `limit / executors`, and 5 s worth of it in one burst.

    In any minute at most the limit goes, plus once the excess of a call that is larger than the whole bucket: such a
    call waits until the bucket is full, and the bucket is in debt after it. Nobody starves as long as the calls of one
    backend are asked for in turn: the one that waits longest first, and nobody else before it may go.
    """

    __slots__ = ("_executors", "_requests", "_tokens")

    def __init__(self, rpm: int | None = None, tpm: int | None = None, executors: int = 1) -> None:
        self._executors = 1
        self._requests: _Bucket | None = None
        self._tokens: _Bucket | None = None
        self.set(rpm, tpm, executors)

    def set(self, rpm: int | None, tpm: int | None, executors: int) -> None:
        """New limits, or another number of replicas (less than one counts as one). None: no limit."""
        executors = max(executors, 1)
        self._requests = _changed(self._requests, rpm, executors)
        self._tokens = _changed(self._tokens, tpm, executors)

    def ready_at_ms(self, tokens: int, now_ms: int) -> int:
        """When a call of so many tokens may go; `now_ms` when it may go now."""
        ready_ms = now_ms
        if self._requests is not None:
            ready_ms = self._requests.ready_at_ms(1, now_ms)
        if self._tokens is not None:
            ready_ms = max(ready_ms, self._tokens.ready_at_ms(tokens, now_ms))
        return ready_ms

    def take(self, tokens: int, now_ms: int) -> None:
        """A call goes. It is counted even when it was not ready: it was made."""
        if self._requests is not None:
            self._requests.take(1, now_ms)
        if self._tokens is not None:
            self._tokens.take(tokens, now_ms)

    def give_back(self, tokens: int, now_ms: int) -> None:
        """A call that was counted is not made."""
        if self._requests is not None:
            self._requests.give_back(1, now_ms)
        if self._tokens is not None:
            self._tokens.give_back(tokens, now_ms)

    def settle(self, tokens_reserved: int, tokens_used: int, now_ms: int) -> None:
        """The call took other than was thought: the rest comes back, or is owed."""
        if self._tokens is not None:
            self._tokens.give_back(tokens_reserved - tokens_used, now_ms)


def _changed(bucket: _Bucket | None, per_minute: int | None, executors: int) -> _Bucket | None:
    if not per_minute:
        return None
    if bucket is None:
        return _Bucket(per_minute, executors)
    bucket.reshape(per_minute, executors)
    return bucket
