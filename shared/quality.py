"""Learned quality: judgements are folded into knowledge (monitor), and knowledge answers how good a model will be (router).

Three tables, each leaning on the next where it has seen little: model, domain and tier → model and domain → model → the
catalogue's prior. What the words of a text say comes on top, in logits. Pure: time is passed in.

    Knowledge().fold(judged, prior) -> keys that changed          the monitor; a replay changes nothing
    knowledge.entry(key) -> QualityEntry                          to publish, keyed `model/domain`
    knowledge.refresh(entries)                                    the router; only entries that were replaced are read
    knowledge.quality(model, domain, tier, tenant, prior) -> float

**Invariant:** what one tenant says moves what the tables believe for another by at most `1 - (1 - SHARE_MAX)³` (0.271), however
much it says: in each of the three its weight is cut to SHARE_MAX of the evidence (`_pooled`). A tenant's own judgements count
in full for itself. The words of a model are one table for all, so they have an owner, the tenant who taught at least half of
them: others together may add little beyond SHARE_MAX each (`may_teach`), and are moved by them by at most WORDS_MOVE_MAX.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.quality import Cell, Judge, QualityEntry
from shared.words import Words, chance

ALL = "*"
"""The domain of an entry over all domains."""

WORDS = "#"
"""The domain of an entry that holds weights on words. It is large and changes slowly: publish it every ten seconds or so."""

ANSWERS = "?"
"""The same of the words of a model's own answers: how right an answer is that reads like this one."""

REST = ""
"""The tenant under whom all are counted for whom a table has no place of their own."""

LEAN = 30.0
"""Judgements that the next coarser table counts for. 10 and 30 differ little; 30 errs less where
models are many (`make bench-routing`)."""

SHARE_MAX = 0.1
TENANTS_MAX = 32
"""Kept apart per table; the tenants beyond count as one. With more room a flood of invented tenants could buy more weight."""

KEEP = 0.9995
"""What a tenant's newer judgement leaves of its older ones in the same table, so that it remembers about 2,000. Per tenant:
nobody can make others' judgements be forgotten."""

DRIFT_SLACK = 0.2
DRIFT_ALARM = 8.0
DRIFT_KEPT = 5.0
"""A model that changes is noticed by two cumulative sums (CUSUM, Page 1954) of how far scores lie below and above their
mean, each less SLACK: a drop by half raises the alarm after some 27 judgements, chance once in 360,000
(exp(2·slack·alarm/σ²), σ² = 1/4). Then the tenant's judgements in that table count for KEPT ones only."""

HALF_LIFE_MS = 30 * 86_400_000
TOKENS_KEEP = 0.99
TOKENS_LEAN = 10.0
WORDS_MOVE_MAX = 0.1

TIERS = (0.25, 0.45)
"""Complexity from which a task is of tier 1 and 2."""

WEIGHTS: Mapping[Judge, float] = {Judge.GATE: 0.25, Judge.MODEL: 1.0, Judge.PROGRAM: 2.0, Judge.PERSON: 1.0}
"""What a judgement is worth as evidence. The gate knows only whether an answer has the right form."""


def tier_of(complexity: float) -> int:
    """0, 1 or 2: easy, medium, hard."""
    return sum(complexity >= bound for bound in TIERS)


@dataclass(frozen=True, slots=True)
class Judged:
    """One judgement of one answer. `source` is `topic/partition` and `offset` its place there: together they make it count once.

    `buckets`: the `sketch` of the last user message, or nothing. `tokens_out`: as the provider counted, or None.
    `answer_buckets`: the `sketch` of the answer, or nothing.
    """

    model: str
    domain: str
    tier: int
    tenant: str
    score: float
    source: str
    offset: int
    at_ms: int
    weight: float = 1.0
    buckets: Sequence[int] = ()
    tokens_out: int | None = None
    answer_buckets: Sequence[int] = ()


_NOTHING = (0.0, 0.0)


@dataclass(slots=True)
class _Table:
    """Of one model and domain: tier → tenant → [count, sum of scores]."""

    cells: dict[int, dict[str, list[float]]] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    tokens_out: float = 0.0
    tokens_seen: float = 0.0
    words: Words | None = None
    updated_ms: int = 0
    drift: dict[str, list[float]] = field(default_factory=dict)

    def add(self, judged: Judged) -> None:
        self._age(judged.at_ms)
        tenants = self.cells.setdefault(judged.tier, {})
        tenant = judged.tenant if judged.tenant in tenants or len(tenants) < TENANTS_MAX else REST
        if tenant != REST:
            self._notice(tenant, judged.score)
        sums = tenants.setdefault(tenant, [0.0, 0.0])
        sums[0] = sums[0] * KEEP + judged.weight
        sums[1] = sums[1] * KEEP + judged.weight * judged.score
        if judged.tokens_out is not None:
            self.tokens_seen = self.tokens_seen * TOKENS_KEEP + 1.0
            self.tokens_out += (judged.tokens_out - self.tokens_out) / self.tokens_seen

    def _notice(self, tenant: str, score: float) -> None:
        """Forget most of what a tenant said where its judgements have drifted away from their mean."""
        own = [tenants[tenant] for tenants in self.cells.values() if tenant in tenants]
        count, score_sum = sum(map(_count, own)), sum(sums[1] for sums in own)
        if count < 2 * DRIFT_KEPT:
            return
        below, above = self.drift.get(tenant, _NOTHING)
        beside = score_sum / count - score
        below, above = max(0.0, below + beside - DRIFT_SLACK), max(0.0, above - beside - DRIFT_SLACK)
        if max(below, above) > DRIFT_ALARM:
            below = above = 0.0
            for sums in own:
                sums[:] = [each * min(1.0, DRIFT_KEPT / count) for each in sums]
        self.drift[tenant] = [below, above]

    def _age(self, at_ms: int) -> None:
        """Everything loses half its weight in HALF_LIFE_MS; done in steps of at least an hour, and never backwards."""
        if self.updated_ms and at_ms - self.updated_ms > 3_600_000:
            kept = 0.5 ** ((at_ms - self.updated_ms) / HALF_LIFE_MS)
            for tenants in self.cells.values():
                for sums in tenants.values():
                    sums[0] *= kept
                    sums[1] *= kept
        elif self.updated_ms:
            return
        self.updated_ms = at_ms

    def owned_by(self, tenant: str) -> bool:
        """Whether the tenant gave at least half of what is in the table; of an empty one everybody did."""
        totals = self.over_tiers()
        return 2 * totals.get(tenant, _NOTHING)[0] >= sum(map(_count, totals.values()))

    def may_teach(self, tenant: str, weight: float) -> bool:
        """The owner always; another one while it has given no more than its share."""
        totals = self.over_tiers()
        given, all_given = totals.get(tenant, _NOTHING)[0] + weight, sum(map(_count, totals.values())) + weight
        return given <= SHARE_MAX * all_given or self.owned_by(tenant)

    def over_tiers(self) -> dict[str, list[float]]:
        totals: dict[str, list[float]] = {}
        for tenants in self.cells.values():
            for tenant, (count, score_sum) in tenants.items():
                sums = totals.setdefault(tenant, [0.0, 0.0])
                sums[0] += count
                sums[1] += score_sum
        return totals


class Knowledge:
    """All tables. Mutable: the monitor folds into one, the router refreshes another from what the first one published."""

    def __init__(self) -> None:
        self._tables: dict[str, _Table] = {}
        self._read: dict[str, QualityEntry] = {}
        self._believed: dict[str, dict[tuple[str, int, str, float], float]] = {}
        self._tenants: set[str] = set()
        self.memo: dict[Any, Any] = {}      # a reader's own conclusions; emptied when a table changes

    def fold(self, judged: Judged, prior: float) -> tuple[str, ...]:
        """Count a judgement. `prior`: the catalogue's quality of the model. Returns the keys that changed: none of a replay."""
        believed = self.quality(judged.model, ALL, 0, judged.tenant, prior) if judged.buckets or judged.answer_buckets else prior
        fresh = [(key, table) for key, table in self._touched(judged) if judged.offset > table.counted.get(judged.source, -1)]
        for key, table in fresh:
            table.counted[judged.source] = judged.offset
            if table.words is None:
                table.add(judged)
            elif table.may_teach(judged.tenant, judged.weight):
                buckets = judged.answer_buckets if key.endswith(f"/{ANSWERS}") else judged.buckets
                table.words.learn(buckets, believed, judged.score, judged.weight)
                table.add(judged)
        if fresh:
            self._believed[judged.model] = {}
            self._tenants.add(judged.tenant)
            self.memo.clear()
        return tuple(key for key, _ in fresh)

    def entry(self, key: str) -> QualityEntry:
        """What to publish under a key. Raises KeyError for one that was never folded or read."""
        model, _, domain = key.rpartition("/")
        table = self._tables[key]
        return QualityEntry(
            model=model,
            domain=domain,
            cells=tuple(
                Cell(tier=tier, tenant=tenant, count=count, score_sum=score_sum)
                for tier, tenants in sorted(table.cells.items())
                for tenant, (count, score_sum) in sorted(tenants.items())
            ),
            tokens_out=table.tokens_out,
            tokens_seen=table.tokens_seen,
            counted=dict(table.counted),
            words=table.words.to_text() if table.words else "",
            drift={tenant: (below, above) for tenant, (below, above) in table.drift.items()},
            updated_ms=table.updated_ms,
        )

    def models(self) -> Mapping[str, object]:
        """The models that anything is known of."""
        return self._believed

    def knows(self, tenant: str) -> bool:
        """Whether the tenant may have judged anything; of all others the same is believed."""
        return tenant in self._tenants

    def known(self) -> Sequence[str]:
        """Keys of every table there is."""
        return tuple(self._tables)

    def refresh(self, entries: Mapping[str, QualityEntry]) -> None:
        """Take over what was published. Entries are replaced whole, so those that are the same object are not read again."""
        for key in self._tables.keys() - entries.keys():
            self._forget(key)
        for key, entry in entries.items():
            if self._read.get(key) is not entry:
                self._forget(key)
                self._read[key] = entry
                self._tables[key] = _table(entry)
                self._believed[entry.model] = {}
                self._tenants.update(cell.tenant for cell in entry.cells)

    def quality(self, model: str, domain: str, tier: int, tenant: str, prior: float) -> float:
        """Expected score in [0, 1] before the words are looked at. One look-up, but after a change of the model's tables."""
        known = self._believed.get(model)
        if known is None:
            return prior
        at = (domain, tier, tenant if self._has_own(model, domain, tenant) else REST, prior)
        found = known.get(at)
        if found is None:
            found = known[at] = self._believe(model, *at)
        return found

    def evidence(self, model: str, domain: str) -> float:
        """Discounted judgements of a model in a domain, over all tenants."""
        known = self._believed.get(model)
        if known is None:
            return 0.0
        at = (domain, -1, REST, 0.0)
        found = known.get(at)
        if found is None:
            table = self._tables.get(key_of(model, domain))
            found = known[at] = sum(map(_count, table.over_tiers().values())) if table else 0.0
        return found

    def tokens_out(self, model: str, domain: str, expected: int) -> int:
        """Output tokens to expect: the domain's mean, leaning on the model's, leaning on `expected`, see `tokens_usual`."""
        tokens = float(expected)
        for key in (key_of(model, ALL), key_of(model, domain)):
            table = self._tables.get(key)
            if table and table.tokens_seen:
                tokens = (table.tokens_out * table.tokens_seen + tokens * TOKENS_LEAN) / (table.tokens_seen + TOKENS_LEAN)
        return round(tokens)

    def tokens_usual(self, domain: str, expected: int) -> int:
        """The same of a model nothing is known of: what all the others take. Were it `expected` alone, which is a guess about
        the task, such a model would look cheaper or dearer than they do for no other reason than that it is new.
        """
        tokens = float(expected)
        for of in (ALL, domain):
            told = seen = 0.0
            for model in self._believed:
                table = self._tables.get(key_of(model, of))
                if table:
                    told += table.tokens_out * table.tokens_seen
                    seen += table.tokens_seen
            tokens = (told + tokens * TOKENS_LEAN) / (seen + TOKENS_LEAN)
        return round(tokens)

    def words(self, model: str, of: str = WORDS) -> Words | None:
        """The weights on words of what a model was asked (WORDS) or answered (ANSWERS), where there are any."""
        table = self._tables.get(key_of(model, of))
        return table.words if table else None

    def words_move_max(self, model: str, tenant: str, of: str = WORDS) -> float:
        """How far the words may move what this tenant is told: little where others taught most of them."""
        table = self._tables.get(key_of(model, of))
        return 1.0 if table and table.owned_by(tenant) else WORDS_MOVE_MAX

    def _has_own(self, model: str, domain: str, tenant: str) -> bool:
        tables = (self._tables.get(key_of(model, domain)), self._tables.get(key_of(model, ALL)))
        return any(tenant in tenants for table in tables if table for tenants in table.cells.values())

    def _believe(self, model: str, domain: str, tier: int, tenant: str, prior: float) -> float:
        overall = self._tables.get(key_of(model, ALL))
        believed = _pooled(overall.over_tiers(), tenant, prior) if overall else prior
        table = self._tables.get(key_of(model, domain)) if domain != ALL else None
        if table:
            believed = _pooled(table.over_tiers(), tenant, believed)
            believed = _pooled(table.cells.get(tier, {}), tenant, believed)
        return believed

    def _touched(self, judged: Judged) -> Iterator[tuple[str, _Table]]:
        read = ((WORDS, judged.buckets), (ANSWERS, judged.answer_buckets))
        for domain in (judged.domain, ALL, *(domain for domain, buckets in read if buckets)):
            key = key_of(judged.model, domain)
            if key not in self._tables:
                self._tables[key] = _Table(words=Words() if domain in (WORDS, ANSWERS) else None)
            yield key, self._tables[key]

    def _forget(self, key: str) -> None:
        self.memo.clear()
        self._read.pop(key, None)
        self._tables.pop(key, None)
        model = key.rpartition("/")[0]
        if any(key_of(model, domain) in self._tables for domain in (ALL, WORDS)):
            self._believed[model] = {}
        else:
            self._believed.pop(model, None)


def key_of(model: str, domain: str) -> str:
    """The record key of an entry. Models may have slashes in their names, domains have none."""
    return f"{model}/{domain}"


def with_words(table: float, overall: float, logit: float, move_max: float, models: int) -> float:
    """Expected score once the words are known: `table` is what the tables believe, `overall` the model's mean, `logit` from
    `Words.logit`. Moved away from `table` by at most `move_max`.

    `models`: how many are compared. The best of many noisy guesses is more often the luckiest one, so with more models each
    guess counts for less: (models − 1)^−0.4, all of it with two, 0.38 with twelve (best of 0, 0.4 and 0.7 in
    `make bench-routing`). Words tell the domain, too, so the table's view of it counts for the rest.
    """
    share = max(1, models - 1) ** -0.4
    base = table + share * (overall - table) if logit else table
    return table + max(-move_max, min(move_max, chance(base, share * logit) - table))


def _pooled(tenants: Mapping[str, Sequence[float]], own: str, lean_on: float) -> float:
    """Mean score for a tenant, leaning on `lean_on`: its own judgements in full, everybody else's at most SHARE_MAX of all.

    The cut c is where c = SHARE_MAX · (lean + own + Σ min(other, c)): found by cutting the largest ones one by one.
    """
    mine = tenants.get(own, _NOTHING) if own != REST else (0.0, 0.0)
    others = sorted((sums for tenant, sums in tenants.items() if tenant != own or own == REST), key=_count, reverse=True)
    base = LEAN + mine[0]
    rest, cut = sum(map(_count, others)), math.inf
    for above, count in enumerate((*map(_count, others), 0.0)):
        cut = SHARE_MAX * (base + rest) / (1.0 - SHARE_MAX * above)
        if count <= cut:
            break
        rest -= count
    weighed = [(count, score_sum, min(1.0, cut / count)) for count, score_sum in others if count > 0]
    total = base + sum(count * kept for count, _, kept in weighed)
    return (LEAN * lean_on + mine[1] + sum(score_sum * kept for _, score_sum, kept in weighed)) / total


def _count(sums: Sequence[float]) -> float:
    return sums[0]


def _table(entry: QualityEntry) -> _Table:
    cells: dict[int, dict[str, list[float]]] = {}
    for cell in entry.cells:
        cells.setdefault(cell.tier, {})[cell.tenant] = [cell.count, min(cell.score_sum, cell.count)]
    words = Words.from_text(entry.words) if entry.words else None
    drift = {tenant: list(sums) for tenant, sums in entry.drift.items()}
    return _Table(cells, dict(entry.counted), entry.tokens_out, entry.tokens_seen, words, entry.updated_ms, drift)


def keys_of(entries: Iterable[QualityEntry]) -> dict[str, QualityEntry]:
    """Entries by their record keys."""
    return {key_of(entry.model, entry.domain): entry for entry in entries}
