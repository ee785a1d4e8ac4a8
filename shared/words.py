"""What the words of a text say of a model's chances: hashed words and pairs of words, and weights on them. Pure.

One pass of AdaGrad (Duchi et al. 2011) on the logistic loss: a rare word learns in large steps, a frequent one in small
ones, so that no vocabulary and no document frequencies need to be kept, and one judgement costs one pass over its words.
"""

import base64
import math
import re
import struct
import zlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

BUCKETS = 1 << 14
"""Of the hash table. Twice as many gain 0.002 APGR on 7,000 questions, half as many lose 0.009 (`make bench-routing`)."""

CHARS_MAX = 3_000
"""Read of a text's beginning; what is asked stands there, and a sketch must stay cheap."""
TAIL_CHARS = 1_000
WORDS_MAX = 512

RATE = 0.2
GRADIENT_START = 0.03
"""Start of a word's sum of squared gradients; smaller makes the first judgement of a word louder."""

Picker = Callable[[Sequence[float]], tuple[float, ...]]

_MASK = BUCKETS - 1
_HALVES = f"<{2 * BUCKETS}e"
_WORD = re.compile(rb"[a-z0-9_\x80-\xff]+|[^\sa-z0-9_\x80-\xff]")
_NO_DIGITS = bytes(sorted(set(range(256)) - set(b"0123456789")))


def sketch(text: str) -> tuple[int, ...]:
    """The buckets of a text's words, its pairs of neighbours, and its size and digits; each bucket once, sorted.

    Stable over processes and releases: `crc32` of the lower-case word. A changed hash would make learned weights noise.
    """
    if len(text) > CHARS_MAX + TAIL_CHARS:
        text = f"{text[:CHARS_MAX]} {text[-TAIL_CHARS:]}"
    raw = text.lower().encode("utf-8", "replace")
    hashes = list(map(zlib.crc32, _WORD.findall(raw)[:WORDS_MAX]))
    buckets = {word & _MASK for word in hashes}
    buckets.update([(before * 31 + word ^ word >> 7) & _MASK for before, word in zip([0, *hashes], hashes, strict=False)])
    digits = len(raw.translate(None, _NO_DIGITS))
    sizes = (
        f"size {int(2 * math.log2(1 + len(hashes)))}",
        f"digits {int(2 * math.log2(1 + digits))}",
        f"share {10 * digits // (1 + len(raw))}",
        f"lines {min(12, raw.count(10))}",
    )
    buckets.update(zlib.crc32(size.encode()) & _MASK for size in sizes)
    return tuple(sorted(buckets))


def text_asked(messages: Sequence[Mapping[str, Any]]) -> str:
    """What a sketch is made of: the text of the last user message of a chat."""
    content = next((message.get("content") for message in reversed(messages) if message["role"] == "user"), "")
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content or () if part.get("type") == "text")


class Words:
    """Weights of one model, in logits. Mutable; `learn` is the only writer."""

    __slots__ = ("_gradients", "_weights")

    def __init__(self) -> None:
        self._weights = array("f", bytes(4 * BUCKETS))
        self._gradients = array("f", [GRADIENT_START]) * BUCKETS

    def logit(self, buckets: Sequence[int]) -> float:
        """What the words add to the logit of a good answer; 0 of a text or a model nothing is known of."""
        return self.logit_of(picker(buckets), len(buckets)) if buckets else 0.0

    def logit_of(self, pick: Picker, count: int) -> float:
        """The same with a `picker` made once for many models: most of the cost of a decision."""
        return float(sum(pick(self._weights))) / math.sqrt(count)

    def learn(self, buckets: Sequence[int], error: float, rate: float = RATE) -> None:
        """One step: `error` is judged score minus the chance believed before, times the judgement's weight."""
        if not buckets or not error:
            return
        weights, gradients = self._weights, self._gradients
        value = 1.0 / math.sqrt(len(buckets))
        squared, step = (error * value) ** 2, error * value * rate
        for bucket in buckets:
            seen = gradients[bucket] + squared
            gradients[bucket] = seen
            weights[bucket] += step / math.sqrt(seen)

    def to_text(self) -> str:
        """For a record: half-precision weights and gradients, compressed; at most 88 KB."""
        halves = struct.pack(_HALVES, *self._weights, *self._gradients)
        return base64.b85encode(zlib.compress(halves, 6)).decode()

    @classmethod
    def from_text(cls, text: str) -> "Words":
        """Raises ValueError where the text is not what `to_text` writes."""
        words = cls()
        try:
            numbers = struct.unpack(_HALVES, zlib.decompress(base64.b85decode(text)))
        except (struct.error, zlib.error, ValueError) as error:
            raise ValueError("words: not a table of weights") from error
        words._weights = array("f", numbers[:BUCKETS])
        words._gradients = array("f", numbers[BUCKETS:])
        return words


def picker(buckets: Sequence[int]) -> Picker:
    """Reads the weights of a sketch in one call in C."""
    return itemgetter(*buckets, buckets[0]) if len(buckets) == 1 else itemgetter(*buckets)
