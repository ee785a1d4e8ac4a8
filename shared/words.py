"""What the words of a text say of a model's chances: hashed words and pairs of words, and weights on them. Pure.

One pass of AdaGrad (Duchi et al. 2011) on the logistic loss: a rare word learns in large steps, a frequent one in small
ones, so that no vocabulary and no document frequencies need to be kept, and one judgement costs one pass over its words.
"""

import base64
import math
import operator
import re
import struct
import zlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

BUCKETS = 1 << 16
"""Of the hash table. A quarter of them loses 0.007 APGR on 7,000 questions, as words begin to share buckets."""

CHARS_MAX = 3_000
"""Read of a text's beginning; what is asked stands there, and a sketch must stay cheap."""
TAIL_CHARS = 1_000
WORDS_MAX = 512
LOGIT_MAX = 4.0

RATE = 0.15
GRADIENT_START = 0.003
"""Start of a word's sum of squared gradients: the smaller, the louder is the first judgement of a word. Both were chosen among
a dozen pairs by cross-validation on 7,000 questions; halves and doubles are within 0.003 APGR."""

GRADIENT_MAX = 60_000.0
"""A sum that only grows would one day be beyond half precision (65,504), and a table that cannot be published ends the monitor.
At the most a judgement still moves a word by up to RATE/245 of its error; two letters asked 400,000 times got there."""

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
    buckets.update(map(bucket_of, sizes))
    return tuple(sorted(buckets))


def bucket_of(name: str) -> int:
    """The bucket of something about a text that is no word of it."""
    return zlib.crc32(name.encode()) & _MASK


def text_asked(messages: Sequence[Mapping[str, Any]]) -> str:
    """What a sketch is made of: the text of the last user message of a chat."""
    content = next((message.get("content") for message in reversed(messages) if message["role"] == "user"), "")
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content or () if part.get("type") == "text")


class Words:
    """What is known of words for one model, in logits. Mutable; `learn` is the only writer."""

    __slots__ = ("_gradients", "_weights")

    def __init__(self) -> None:
        self._weights = array("f", bytes(4 * BUCKETS))
        self._gradients = array("f", [GRADIENT_START]) * BUCKETS

    def logit(self, buckets: Sequence[int]) -> float:
        """What the words add to the logit of a good answer; 0 of a text or a model nothing is known of."""
        return self.logit_of(picker(buckets), len(buckets)) if buckets else 0.0

    def logit_of(self, pick: Picker, count: int) -> float:
        """The same with a `picker` made once for many models: most of the cost of a decision."""
        return sum(pick(self._weights)) / math.sqrt(count)

    def learn(self, buckets: Sequence[int], believed: float, score: float, weight: float = 1.0) -> None:
        """One judgement. `believed`: the chance of a good answer before the words were looked at."""
        if not buckets:
            return
        value = 1.0 / math.sqrt(len(buckets))
        error = weight * (score - chance(believed, self.logit(buckets)))
        squared, step = (error * value) ** 2, error * value * RATE
        weights, gradients, root = self._weights, self._gradients, math.sqrt
        for at in buckets:      # the costly loop: some hundred words a judgement
            seen = gradients[at] + squared
            gradients[at] = seen = seen if seen < GRADIENT_MAX else GRADIENT_MAX
            weights[at] += step / root(seen)

    def to_text(self) -> str:
        """For a record: both tables in half precision, compressed; few KB after few judgements, at most 330 KB."""
        halves = struct.pack(_HALVES, *self._weights, *self._gradients)
        return base64.b85encode(zlib.compress(halves, 6)).decode()

    @classmethod
    def from_text(cls, text: str) -> "Words":
        """Raises ValueError where the text is not what `to_text` writes. A number without end is taken for nothing learned: it
        would make every belief of its word one, too.
        """
        words = cls()
        try:
            numbers = struct.unpack(_HALVES, zlib.decompress(base64.b85decode(text)))
        except (struct.error, zlib.error, ValueError) as error:
            raise ValueError("words: not a table of weights") from error
        weights, gradients = numbers[:BUCKETS], numbers[BUCKETS:]
        if not math.isfinite(sum(numbers)):      # the cheapest look at all of them
            weights, gradients = _ended(weights, 0.0), _ended(gradients, GRADIENT_MAX)
        words._weights, words._gradients = array("f", weights), array("f", gradients)
        return words


def _ended(numbers: Sequence[float], instead: float) -> tuple[float, ...]:
    return tuple(number if math.isfinite(number) else instead for number in numbers)


def chance(believed: float, logit: float) -> float:
    """A chance moved by so many logits; both are kept off the extremes, where nothing could be learned any more."""
    inside = min(max(believed, 0.01), 0.99)
    return 1.0 / (1.0 + math.exp(-math.log(inside / (1.0 - inside)) - max(-LOGIT_MAX, min(LOGIT_MAX, logit))))


def picker(buckets: Sequence[int]) -> Picker:
    """Reads the weights of a sketch in one call in C."""
    return operator.itemgetter(*buckets, buckets[0]) if len(buckets) == 1 else operator.itemgetter(*buckets)
