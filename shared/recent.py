"""Which ids came lately, in little memory: of each only a fingerprint is kept. Pure.

**Invariant:** an id that was added is found until `add` says that ids of its time were given up.
"""

from array import array

SLOTS_MIN = 1_024
"""A table grows with what it holds: laid out in full at once, those of the executor took 8 MB before the first request."""


class Recent:
    """The newest ids: at least half of the limit, at most all of it. The older half is given up whole, because what keeps the
    order of single ids, such as an OrderedDict, takes 200 bytes for each."""

    def __init__(self) -> None:
        self._newer = _Half(0)
        self._older = _Half(0)

    def __contains__(self, id: str) -> bool:
        fingerprint = _fingerprint(id)
        return fingerprint in self._newer or fingerprint in self._older

    def add(self, id: str, logged_ms: int, ids_max: int) -> int | None:
        """Returns the latest time of what was given up for it; None: there was room. The limit may change between calls."""
        fingerprint, half = _fingerprint(id), max(ids_max // 2, 1)
        if fingerprint in self._older:
            return None
        given_up = None
        if self._newer.count >= min(half, self._newer.ids_max):
            given_up, self._older, self._newer = self._older, self._newer, _Half(half)
        self._newer.add(fingerprint, logged_ms)
        return given_up.latest_ms if given_up is not None and given_up.count else None


class _Half:
    """A set of fingerprints as a table with open addressing: 12 to 24 bytes an id, where Python's own set of numbers takes 86."""

    def __init__(self, ids_max: int) -> None:
        self.ids_max = ids_max
        self.count = 0
        self.latest_ms = 0
        self._lay_out(SLOTS_MIN)

    def _lay_out(self, size: int) -> None:
        """`size` is a power of two, of which at most two thirds are taken."""
        self._slots = array("q", [0]) * size
        self._mask = size - 1

    def __contains__(self, fingerprint: int) -> bool:
        return self._slots[self._place(fingerprint)] == fingerprint

    def add(self, fingerprint: int, logged_ms: int) -> None:
        """Only while `count` is below `ids_max`: a search ends at a slot that is free."""
        place = self._place(fingerprint)
        self.count += not self._slots[place]
        self._slots[place] = fingerprint
        self.latest_ms = max(self.latest_ms, logged_ms)
        if 3 * self.count > 2 * len(self._slots):
            self._grow()

    def _grow(self) -> None:
        """Takes 0.3 µs an id, so 50 ms for the last time on the way to a quarter of a million."""
        before = self._slots
        self._lay_out(2 * len(before))
        for fingerprint in before:
            if fingerprint:
                self._slots[self._place(fingerprint)] = fingerprint

    def _place(self, fingerprint: int) -> int:
        """Where it stands, or where it would: slots that hold 0 are free."""
        slots, mask = self._slots, self._mask
        place = fingerprint & mask
        while (found := slots[place]) and found != fingerprint:
            place = (place + 1) & mask
        return place


def _fingerprint(id: str) -> int:
    """64 bits, never 0. That one of half a million ids has the fingerprint of a new one happens once in a thousand years at 1,000
    requests a second, and nobody can aim at it: the hash has a secret of its own in every process."""
    return hash(id) or 1
