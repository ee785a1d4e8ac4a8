"""What the books remember of answered requests, when there is no more room."""

import time
from statistics import median

from services.monitor.lessons import REMEMBERED_MAX, Answered, Lessons

ANSWERED = Answered(tenant="acme", model="small", domain="chat", complexity=0.1, source="verdicts/0", accepted_ms=1)


def test_a_full_memory_gives_the_oldest_request_up_and_that_takes_no_longer_than_to_fill_it() -> None:
    lessons = Lessons(lambda model: 0.5)

    def remembering_s(first: int, last: int) -> float:
        """The median of many small steps: what else the machine does hits few of them."""
        steps = []
        for start in range(first, last, 200):
            began_s = time.perf_counter()
            for number in range(start, start + 200):
                lessons.remember(str(number), ANSWERED)
            steps.append(time.perf_counter() - began_s)
        return median(steps)

    filling_s = remembering_s(0, REMEMBERED_MAX)
    full_s = remembering_s(REMEMBERED_MAX, REMEMBERED_MAX + 30_000)
    assert lessons.recall("29999") is None
    assert lessons.recall("30000") == ANSWERED
    assert full_s < 8 * filling_s
