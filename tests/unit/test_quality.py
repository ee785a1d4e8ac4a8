"""What is learned of models: judgements move beliefs, count once, are forgotten, and cannot be used against others."""

import base64
import math
import random
import struct
import zlib
from typing import Any

import pytest

from schemas.quality import QualityEntry
from shared.quality import ALL, LEAN, WORDS, Judged, Knowledge, key_of, keys_of, tier_of, with_words
from shared.words import BUCKETS, Words, picker, sketch
from tests.support.builders import NOW_MS

SKETCH = (1835, 21204, 26683, 42764, 43879, 45103, 46032, 49840, 53373, 53732, 54237, 56932)
HARD, EASY = sketch("Prove that every bounded monotone sequence converges."), sketch("What is the capital of France?")


def judged(score: float = 1.0, offset: int = 0, **fields: Any) -> Judged:
    defaults: dict[str, Any] = {"model": "small", "domain": "law", "tier": 1, "tenant": "acme", "source": "verdicts/0"}
    return Judged(score=score, offset=offset, **(defaults | {"at_ms": NOW_MS} | fields))


def taught(*facts: Judged, prior: float = 0.5) -> Knowledge:
    knowledge = Knowledge()
    for fact in facts:
        knowledge.fold(fact, prior)
    return knowledge


def believed(knowledge: Knowledge, tenant: str = "acme", domain: str = "law", tier: int = 1, prior: float = 0.5) -> float:
    return knowledge.quality("small", domain, tier, tenant, prior)


def published(knowledge: Knowledge) -> dict[str, QualityEntry]:
    keys = [key_of("small", domain) for domain in ("law", "maths", ALL, WORDS)]
    entries = keys_of(knowledge.entry(key) for key in keys if key in knowledge.known())
    return {key: QualityEntry.model_validate_json(entry.model_dump_json()) for key, entry in entries.items()}


def test_what_nobody_judged_is_as_good_as_the_catalogue_says() -> None:
    assert Knowledge().quality("small", "law", 0, "acme", 0.73) == 0.73


def test_judgements_move_the_belief_in_their_tier_most_then_in_their_domain_then_elsewhere() -> None:
    knowledge = taught(*(judged(0.0, offset) for offset in range(20)))
    here, tier, domain = believed(knowledge), believed(knowledge, tier=0), believed(knowledge, domain="maths")
    assert here < tier < domain < 0.5
    assert domain == pytest.approx(0.5 * LEAN / (LEAN + 20), abs=0.01)


def test_few_judgements_are_enough_to_tell_a_new_model_from_what_its_prior_promised() -> None:
    assert believed(taught(*(judged(0.1, offset) for offset in range(8)), prior=0.9), prior=0.9) < 0.5


def test_a_judgement_counts_once_however_often_and_in_whatever_company_it_is_read_again() -> None:
    facts = [judged(offset % 3 / 2, offset, buckets=HARD) for offset in range(9)]
    knowledge = taught(*facts)
    before = published(knowledge)
    assert [knowledge.fold(fact, 0.5) for fact in facts[4:]] == [()] * 5
    assert published(knowledge) == before
    assert knowledge.fold(judged(0.0, 3, source="feedback/1"), 0.5) == ("small/law", "small/*")


def test_a_monitor_that_starts_again_from_what_it_published_goes_on_where_it_stopped() -> None:
    facts = [judged(offset % 2, offset, buckets=EASY if offset % 2 else HARD) for offset in range(40)]
    whole, first = taught(*facts), taught(*facts[:25])
    again = Knowledge()
    again.refresh(published(first))
    for fact in facts:
        again.fold(fact, 0.5)
    assert believed(again) == pytest.approx(believed(whole), abs=1e-9)
    for buckets in (EASY, HARD):
        assert words_of(again).logit(buckets) == pytest.approx(words_of(whole).logit(buckets), rel=0.01)


def test_a_key_published_later_than_another_is_made_whole_by_the_replay() -> None:
    facts = [judged(0.0, offset) for offset in range(6)]
    whole, first = taught(*facts), taught(*facts[:3])
    early, late = published(first)["small/law"], published(whole)["small/*"]
    again = Knowledge()
    again.refresh({"small/law": early, "small/*": late})
    assert [again.fold(fact, 0.5) for fact in facts] == [()] * 3 + [("small/law",)] * 3
    assert believed(again) == believed(whole)


def test_a_router_believes_what_the_monitor_published_and_forgets_what_was_withdrawn() -> None:
    knowledge, router = taught(*(judged(0.0, offset, buckets=HARD) for offset in range(5))), Knowledge()
    router.refresh(published(knowledge))
    assert believed(router) == believed(knowledge)
    knowledge.fold(judged(1.0, 5), 0.5)
    router.refresh(published(knowledge))
    assert believed(router) == believed(knowledge)
    router.refresh({})
    assert believed(router) == 0.5
    assert router.words("small") is None


def test_a_model_that_has_changed_is_believed_anew_within_a_hundred_judgements() -> None:
    knowledge = taught(*(judged(1.0, offset) for offset in range(3_000)))
    assert believed(knowledge) > 0.97
    for offset in range(3_000, 3_100):
        knowledge.fold(judged(0.0, offset), 0.5)
    assert believed(knowledge) < 0.1
    for offset in range(3_100, 3_200):
        knowledge.fold(judged(1.0, offset), 0.5)
    assert believed(knowledge) > 0.9


def test_chance_alone_makes_nothing_be_forgotten() -> None:
    rng = random.Random(5)
    knowledge = taught(*(judged(float(rng.random() < 0.5), offset) for offset in range(4_000)))
    assert knowledge.evidence("small", "law") > 1_500


def test_a_judgement_of_long_ago_counts_for_less() -> None:
    month_ms = 30 * 86_400_000
    old = taught(judged(0.0, 0), judged(0.0, 1), judged(1.0, 2, at_ms=NOW_MS + month_ms))
    assert believed(old) > believed(taught(judged(0.0, 0), judged(0.0, 1), judged(1.0, 2)))


@pytest.mark.parametrize("lies", [1, 30, 100_000])
@pytest.mark.parametrize("honest", [0, 3, 200])
def test_one_tenants_lies_move_no_other_beyond_the_stated_bound_however_many_they_are(lies: int, honest: int) -> None:
    truth = [judged(0.8, offset, tenant=f"tenant {offset % 3}") for offset in range(honest)]
    told = min(lies, 5_000)     # far beyond what a table remembers
    knowledge, clean = taught(*truth, prior=0.8), taught(*truth, prior=0.8)
    for offset in range(told):
        knowledge.fold(judged(0.0, offset, tenant="liar", source="feedback/0"), 0.8)
    for tenant in ("tenant 0", "tenant 1", "stranger"):
        moved = believed(clean, tenant, prior=0.8) - believed(knowledge, tenant, prior=0.8)
        assert 0.0 <= moved <= 0.8 * (1 - 0.9**3) + 1e-9
    assert believed(knowledge, "liar", prior=0.8) < 0.8


def test_invented_tenants_count_together_as_one_once_a_table_is_full() -> None:
    knowledge = taught(*(judged(1.0, offset, tenant=f"honest {offset}") for offset in range(32)))
    clean = believed(knowledge, "stranger")
    for offset in range(2_000):
        knowledge.fold(judged(0.0, offset, tenant=f"invented {offset}", source="feedback/0"), 0.5)
    assert clean - believed(knowledge, "stranger") <= 1 - 0.9**3


def test_ten_tenants_of_the_same_opinion_convince_an_eleventh() -> None:
    assert believed(taught(*(judged(0.0, offset, tenant=f"tenant {offset % 10}") for offset in range(500))), "stranger") < 0.05


def words_of(knowledge: Knowledge) -> Words:
    words = knowledge.words("small")
    assert words is not None
    return words


def test_words_tell_questions_apart_that_share_domain_and_tier() -> None:
    facts = [judged(float(offset % 2), offset, buckets=EASY if offset % 2 else HARD) for offset in range(60)]
    words = words_of(taught(*facts))
    assert words.logit(EASY) > 1 > -1 > words.logit(HARD)
    assert words.logit(sketch("Prove that this sequence converges.")) < 0


def test_words_move_a_belief_by_no_more_than_they_may_and_less_the_more_models_are_compared() -> None:
    assert with_words(0.5, 0.5, 9.0, 0.1, 2) == 0.6
    assert with_words(0.5, 0.5, -9.0, 0.1, 2) == 0.4
    assert with_words(0.5, 0.7, 0.0, 1.0, 2) == 0.5
    assert with_words(0.5, 0.5, 1.0, 1.0, 20) < with_words(0.5, 0.5, 1.0, 1.0, 2) == with_words(0.5, 0.5, 1.0, 1.0, 1)
    assert 0.0 <= with_words(0.0, 0.1, -9.0, 1.0, 2) <= with_words(1.0, 0.9, 9.0, 1.0, 2) <= 1.0


def test_who_did_not_teach_most_of_the_words_is_moved_little_by_them_and_may_teach_little() -> None:
    honest = [judged(float(offset % 2), offset, buckets=EASY if offset % 2 else HARD) for offset in range(40)]
    knowledge, clean = taught(*honest), taught(*honest)
    before = words_of(clean).logit(EASY)
    for offset in range(5_000):
        knowledge.fold(judged(0.0, offset, buckets=EASY, tenant="liar", source="feedback/0"), 0.5)
    assert words_of(knowledge).logit(EASY) > 0.4 * before
    assert knowledge.words_move_max("small", "acme") == 1.0
    assert knowledge.words_move_max("small", "liar") == knowledge.words_move_max("small", "stranger") == 0.1


def test_tokens_of_an_answer_are_learned_by_domain_and_lean_on_what_was_expected() -> None:
    knowledge = taught(*(judged(1.0, offset, tokens_out=900) for offset in range(50)))
    assert 800 < knowledge.tokens_out("small", "law", 300) <= 900
    assert knowledge.tokens_out("large", "law", 300) == 300


def test_a_sketch_is_the_same_in_every_process_and_release() -> None:
    assert sketch("How many apples?") == SKETCH


def test_a_sketch_is_bounded_whatever_the_text() -> None:
    rng = random.Random(1)
    for text in ("", " ", "a" * 100_000, "é" * 5_000, "\ud800", "".join(chr(rng.randrange(1, 0x2FFF)) for _ in range(20_000))):
        assert len(sketch(text)) <= 2 * 512 + 4


def test_weights_survive_their_way_through_a_record() -> None:
    words = Words()
    for _ in range(30):
        words.learn(EASY, 0.5, 1.0)
        words.learn(HARD, 0.5, 0.0)
    again = Words.from_text(words.to_text())
    assert again.logit(EASY) == pytest.approx(words.logit(EASY), rel=0.01)
    assert again.logit_of(picker(HARD), len(HARD)) == again.logit(HARD)
    assert len(words.to_text()) < 2_000
    for rubbish in ("", "x", Words().to_text()[:-9]):
        with pytest.raises(ValueError, match="words"):
            Words.from_text(rubbish)


def test_words_that_are_asked_for_ever_can_still_be_published() -> None:
    words = Words()
    for offset in range(1_000):
        words.learn((7,), 0.5, float(offset % 2), weight=100.0)
    again = Words.from_text(words.to_text())
    before = again.logit((7,))
    again.learn((7,), 0.5, 1.0)
    assert again.logit((7,)) > before


def test_a_published_weight_without_end_is_taken_for_nothing_and_learned_anew() -> None:
    endless = [0.0] * (2 * BUCKETS)
    endless[7], endless[8], endless[BUCKETS + 7], endless[9] = math.inf, math.nan, math.inf, 0.5
    words = Words.from_text(base64.b85encode(zlib.compress(struct.pack(f"<{2 * BUCKETS}e", *endless))).decode())
    assert words.logit((7,)) == words.logit((8,)) == 0 < words.logit((9,))
    words.learn((7,), 0.5, 1.0)
    assert words.logit((7,)) > 0
    assert Words.from_text(words.to_text()).logit((9,)) == words.logit((9,))


def test_a_text_of_one_word_and_a_text_of_none_have_a_logit() -> None:
    words = Words()
    words.learn((7,), 0.5, 1.0)
    assert words.logit((7,)) > 0
    assert words.logit(()) == 0
    assert math.isfinite(words.logit(sketch("")))


def test_complexity_becomes_one_of_three_tiers() -> None:
    assert [tier_of(complexity) for complexity in (0.0, 0.24, 0.25, 0.44, 0.45, 1.0)] == [0, 0, 1, 1, 2, 2]
