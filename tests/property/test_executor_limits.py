"""Whatever is asked for and when: limits per minute hold, retries stay within their tokens, lanes get their share."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.messages import Lane
from services.executor.concurrency import Gradient
from services.executor.lanes import LANES, WEIGHTS, Turnstile
from services.executor.quota import BURST_MS, Quota
from services.executor.retry_tokens import TOKENS_MAX, HedgeBudget, Retry, RetryTokens

T0_MS = 1_760_000_000_000
MINUTE_MS = 60_000

few = settings(max_examples=60)


@few
@given(
    st.integers(1, 600),
    st.integers(1, 100_000),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 20_000)), min_size=1, max_size=80),
)
def test_no_minute_has_more_than_the_limit(
    rpm: int, tpm: int, executors: int, asked: list[tuple[int, int]]
) -> None:
    """Calls come after pauses, with so many tokens; each goes when the quota says so."""
    quota, now_ms, calls = Quota(rpm, tpm, executors), T0_MS, []
    for pause_ms, tokens in asked:
        now_ms += pause_ms
        ready_ms = quota.ready_at_ms(tokens, now_ms)
        assert now_ms <= ready_ms
        turn_ms = executors * (MINUTE_MS + BURST_MS) * max(1 / rpm, 20_000 / tpm)
        assert ready_ms - now_ms <= turn_ms + 2 * BURST_MS, "nobody starves"
        now_ms = ready_ms
        assert quota.ready_at_ms(tokens, now_ms) == now_ms, "it may go when it was told to"
        quota.take(tokens, now_ms)
        calls.append((now_ms, tokens))
    largest = max(tokens for _, tokens in calls)
    for from_ms, _ in calls:
        within = [tokens for at_ms, tokens in calls if from_ms <= at_ms < from_ms + MINUTE_MS]
        assert len(within) <= rpm / executors + 1, "one more where a part is less than a whole call"
        assert sum(within) <= tpm / executors + largest


@few
@given(st.lists(st.sampled_from(["first try", "retry", "retry fails", "throttled retry fails"]), max_size=400))
def test_retries_that_fail_are_paid_by_calls_that_succeed(events: list[str]) -> None:
    tokens, succeeded, cost = RetryTokens(), 0, 0
    for event in events:
        kind = Retry.THROTTLED if "throttled" in event else Retry.TRANSIENT
        if event == "first try":
            tokens.refund(is_retry=False)
            succeeded += 1
        elif tokens.may_retry(kind):
            tokens.spend(kind)
            if event == "retry":
                tokens.refund(is_retry=True)
            else:
                cost += kind
        assert 0 <= tokens.tokens <= TOKENS_MAX
        assert cost <= TOKENS_MAX + succeeded


@few
@given(st.lists(st.booleans(), max_size=1000), st.floats(0.001, 0.5))
def test_hedges_are_at_most_their_share_of_the_primaries_and_one(wishes: list[bool], share: float) -> None:
    budget, hedges = HedgeBudget(share), 0
    for primaries, wants_hedge in enumerate(wishes, 1):
        budget.credit()
        if wants_hedge and budget.may_hedge():
            budget.spend()
            hedges += 1
        assert hedges <= 1 + share * primaries + 1e-6


calls = st.tuples(st.floats(0.01, 10_000), st.integers(1, 300), st.integers(0, 5_000), st.booleans())


@few
@given(st.integers(2, 500), st.lists(calls, max_size=300))
def test_the_limit_stays_between_one_and_its_maximum(limit_max: int, seen: list[tuple[float, int, int, bool]]) -> None:
    limit, now_ms = Gradient(limit_max), T0_MS
    for pace_ms, in_flight, pause_ms, is_dropped in seen:
        now_ms += pause_ms
        if is_dropped:
            limit.dropped(now_ms)
        else:
            limit.observe(pace_ms, in_flight, now_ms)
        assert 1 <= limit.limit <= limit_max
        assert limit._limit >= 2


actions = st.one_of(
    st.tuples(
        st.just("enter"), st.sampled_from(LANES), st.sampled_from(["a", "b", "ab"]), st.integers(0, 50), st.integers(1, 99)
    ),
    st.tuples(st.just("offer"), st.sampled_from("ab")),
    st.tuples(st.just("leave"), st.integers(0, 400)),
    st.tuples(st.just("expire")),
)


@few
@given(st.lists(actions, max_size=120))
def test_a_turnstile_agrees_with_a_naive_one(steps: list[tuple]) -> None:
    """Every ticket ends once; a place goes to who stands first in its lane, and never stays empty while wanted."""
    turnstile, waiting, tickets = Turnstile(), {}, []
    for now_ms, step in enumerate(steps):
        if step[0] == "enter":
            _, lane, backends, order, patience = step
            ticket = turnstile.enter(lane, backends, order, now_ms + patience, now_ms)
            waiting[ticket] = None
            tickets.append(ticket)
        elif step[0] == "offer":
            ready = [one for one in waiting if step[1] in one.backends and one.latest_start_ms > now_ms]
            ticket = turnstile.offer(step[1], now_ms)
            assert (ticket is None) == (not ready)
            if ticket is not None:
                mates = [one for one in ready if one.lane is ticket.lane]
                assert ticket is min(mates, key=lambda one: (one.order, one.number))
                del waiting[ticket]
        elif step[0] == "leave" and tickets:
            ticket = tickets[step[1] % len(tickets)]
            turnstile.leave(ticket)
            waiting.pop(ticket, None)
        elif step[0] == "expire":
            late = {one for one in waiting if one.latest_start_ms <= now_ms}
            told = turnstile.expired(now_ms)
            assert len(told) == len(set(told))
            assert set(told) == late
            waiting = {one: None for one in waiting if one not in late}
        usable = Counter(one.lane for one in waiting if one.latest_start_ms > now_ms)
        assert all(turnstile.waiting(lane) >= usable[lane] for lane in LANES)
        assert set(turnstile.wanted()) >= {name for one in waiting if one.latest_start_ms > now_ms for name in one.backends}


@few
@given(st.lists(st.sampled_from(LANES), min_size=1, max_size=12), st.integers(20, 200))
def test_no_lane_that_waits_is_served_less_than_its_share(arrivals: list[Lane], places: int) -> None:
    """All lanes are full from the first call on; others have been served alone before."""
    turnstile = Turnstile()
    for order, lane in enumerate(arrivals):
        turnstile.enter(lane, "a", order, T0_MS, 0)
        turnstile.offer("a", 0)
    for lane in LANES:
        for order in range(places):
            turnstile.enter(lane, "a", order, T0_MS, 0)
    counts = Counter(turnstile.offer("a", 0).lane for _ in range(places))
    for lane in LANES:
        floor = places * WEIGHTS[lane] / sum(WEIGHTS.values())
        head_start = arrivals.count(lane) and 1
        assert counts[lane] >= int(floor) - 1 - head_start
