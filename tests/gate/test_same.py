"""A verdict is the same in every process: what is judged again after a crash must not be judged otherwise."""

import os
import subprocess
import sys

PROGRAM = """
from hashlib import sha256
from services.quality_gate.checks import judge
from services.quality_gate.scores import scores
from tests.gate.labelled_set import labelled

told = [(scores(case.answer, case.task), judge(case.answer, case.task, (case.spec,))) for case in labelled()]
print(sha256(repr(told).encode()).hexdigest())
"""


def test_scores_and_checks_do_not_depend_on_the_order_of_a_set() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(digests) == 1
