"""What services/quality_gate/README.md says about checks and scores is what they do."""

import re
from pathlib import Path

import yaml

from schemas.checks import SETTINGS
from schemas.config import Policy
from services.quality_gate.checks import CHECKS, judge
from services.quality_gate.scores import SCORERS
from tests.support.builders import a_chat, a_task, an_answer

README = (Path(__file__).parents[2] / "services" / "quality_gate" / "README.md").read_text(encoding="utf-8")


def rows() -> dict[str, str]:
    """Name and last column of each row of the README's tables whose first cell is a check or a score."""
    found = re.findall(r"(?m)^\| `(\w+)` \|(?:.*\|)? ?(.*?) ?\|$", README)
    return {name: last for name, last in found if name in CHECKS}


def test_the_readme_has_every_check_and_every_setting() -> None:
    assert set(rows()) == set(CHECKS)
    for name, last in rows().items():
        if name not in SCORERS:
            assert {word.partition(":")[0] for word in re.findall(r"`([\w: ]+)`", last)} == set(SETTINGS[name]), name


def test_the_readmes_policy_is_one_and_finds_what_it_says() -> None:
    (example,) = re.findall(r"```yaml\n(policies:.*?)```", README, re.DOTALL)
    policy = Policy.model_validate(yaml.safe_load(example)["policies"]["invoices"])
    task = a_task(a_chat(response_format={"type": "json_object"}))
    mended = judge(an_answer("```json\n{'betrag': 'Die Rechnung ist von uns und nicht zu zahlen'}\n```"), task, policy.checks)
    assert all(check.passed for check in mended.checks), mended.checks
    leaked = judge(an_answer('{"marke": "zx-canary-7719"}'), task, policy.checks)
    assert [check.name for check in leaked.checks if not check.passed] == ["no_leak"]
