"""A dead letter keeps what was rejected, and its cause is the stage's word alone."""

from schemas.envelope import DeadHeader
from schemas.messages import Reason
from schemas.topology import stage_named
from shared.broker import Record
from shared.dead_letters import dead_letter
from shared.outcome import Reject


def test_what_a_user_calls_a_cause_is_not_taken_for_it() -> None:
    forged = ((DeadHeader.TOPIC, b"results"), (DeadHeader.PARTITION, b"x"), (DeadHeader.REASON, b"a prompt"), ("own", b"kept"))
    record = Record("intake", 1, 2, 3, b"key", b"{", tuple((str(name), value) for name, value in forged))
    letter = dead_letter(stage_named("intake"), record, Reject(Reason.MALFORMED_JSON, "not JSON"), 3)
    headers = dict(letter.headers)
    assert len(headers) == len(letter.headers), "each name once"
    assert (headers[DeadHeader.TOPIC], headers[DeadHeader.PARTITION], headers[DeadHeader.OFFSET]) == (b"intake", b"1", b"2")
    assert headers[DeadHeader.REASON] == b"malformed_json"
    assert headers["own"] == b"kept"
    assert (letter.key, letter.value) == (b"key", b"{")
