"""A broken pipeline is refused with its line, its field and its fix, before it reaches the config topic."""

import pytest

from services.cli.config_file import parse
from shared.errors import ConfigError

SMALL = """\
models:
  small: {quality: 0.5, context_tokens: 1000}
backends:
  b: {model: small, provider: p, base_url: "http://127.0.0.1/v1", prices: {input: 1, output: 1}}
tenants: {t: {}}
pipelines:
"""


def problems_of(pipelines: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(SMALL + pipelines)
    return str(caught.value).splitlines()


def problem_of(pipelines: str) -> str:
    (problem,) = problems_of(pipelines)
    return problem


def test_a_sound_pipeline_is_read() -> None:
    config = parse(SMALL + """\
  two:
    sequence:
      - name: draft
        step: {prompt: "Write: {{ request.text }}"}
      - step: {prompt: "Shorten: {{ draft }}", model: small}
""")
    assert [part.kind for part in config.pipelines["two"].sequence or ()] == ["step", "step"]


def test_a_ring_of_references_is_named() -> None:
    found = problems_of("""\
  a: {pipeline: b}
  b: {sequence: [{step: {}}, {pipeline: a}]}
""")
    assert found == [
        "baton.yaml:7: pipelines.a: stands for itself: a -> b -> a; take one of the references out",
        "baton.yaml:8: pipelines.b: stands for itself: b -> a -> b; take one of the references out",
    ]


def test_a_step_may_not_name_a_policy_whose_review_or_judge_would_not_hold_for_it() -> None:
    found = problem_of("""\
  p: {step: {policy: careful}}
policies:
  default: {}
  careful: {review: {share: 0.1}, judge: {share: 0.1, models: [small]}}
""")
    assert found == (
        "baton.yaml:7: pipelines.p.step.policy: careful has review and judge, held to a request's answer and not to a step's; "
        "name a policy without, and set review and judge on the tenant's"
    )


def test_a_branch_without_a_default_is_refused() -> None:
    assert problem_of("""\
  p:
    branch:
      cases:
        - when: {value: request.text, contains: [refund]}
          then: {step: {}}
""") == "baton.yaml:8: pipelines.p.branch.default: missing; give the node for when no case holds"


def test_an_unknown_merge_is_refused_with_those_that_exist() -> None:
    problem = problem_of("""\
  p:
    parallel:
      branches: [{step: {}}, {step: {}}]
      merge: average
""")
    assert problem.startswith("baton.yaml:10: pipelines.p.parallel.merge: ")
    assert "'first', 'all', 'vote', 'best', 'concatenate' or 'model'" in problem


def test_a_loop_without_a_bound_is_refused() -> None:
    assert problem_of("""\
  p:
    loop:
      body: {step: {}}
""") == "baton.yaml:8: pipelines.p.loop.at_most: missing; give the most turns it may take, 1 to 10"


@pytest.mark.parametrize("template", ["{{ draft }}", "{% if draft %}x{% endif %}", "{% for part in draft.json %}x{% endfor %}"])
def test_a_template_that_names_a_step_that_did_not_run_is_refused(template: str) -> None:
    assert problem_of(f"""\
  p:
    sequence:
      - step:
          prompt: "{template}"
      - name: draft
        step: {{}}
""") == (
        "baton.yaml:10: pipelines.p.sequence.0.step.prompt: "
        "'draft' has not run before this node, or has no name; there are features, request"
    )


def test_a_step_of_another_branch_is_not_seen() -> None:
    problem = problem_of("""\
  p:
    parallel:
      merge: all
      branches:
        - sequence: [{name: mine, step: {}}, {step: {prompt: "{{ mine }}"}}]
        - step: {prompt: "{{ mine }}"}
""")
    assert problem.startswith("baton.yaml:12: pipelines.p.parallel.branches.1.step.prompt: 'mine' has not run")


@pytest.mark.parametrize("value", ["kind", "kind.text", "request.text", "features.language"])
@pytest.mark.parametrize(("bare", "quoted"), [("yes", "yes"), ("on", "yes"), ("no", "no"), ("false", "no")])
def test_a_word_that_yaml_reads_as_no_text_is_refused_where_a_text_is_tested(value: str, bare: str, quoted: str) -> None:
    problem = problem_of(f"""\
  p:
    sequence:
      - {{name: kind, step: {{}}}}
      - branch:
          cases:
            - when: {{value: {value}, equals: {bare}}}
              then: {{step: {{}}}}
          default: {{step: {{}}}}
""")
    assert problem.startswith(f"baton.yaml:12: pipelines.p.sequence.1.branch.cases.0.when.equals: {value} is a text")
    assert problem.endswith(f"write '{quoted}' in quotes")


@pytest.mark.parametrize(
    "test", ["value: kind.text, equals: 'yes'", "value: kind.json.text, equals: yes", "value: item, equals: no"]
)
def test_a_quoted_word_and_a_truth_of_json_may_be_tested(test: str) -> None:
    parse(SMALL + f"""\
  p:
    sequence:
      - {{name: kind, step: {{}}}}
      - map:
          over: kind.json
          body: {{branch: {{cases: [{{when: {{{test}}}, then: {{step: {{}}}}}}], default: {{step: {{}}}}}}}}
""")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('step: {prompt: "{{ request.text"}', "of the template: "),
        ('step: {prompt: "{% for a in request.text %}{% for b in a %}{% endfor %}{% endfor %}"}', "a loop within a loop"),
        ('step: {prompt: "{{ request.text.upper() }}"}', "call is not part of the language"),
        ('step: {prompt: "{% set x = 1 %}"}', "assign is not part of the language"),
        ('step: {prompt: "{{ request.text * 9 }}"}', "mul is not part of the language"),
        ("step: {model: huge}", "no model 'huge'; define it under models"),
        ("step: {policy: strict}", "no policy 'strict'; define it under policies"),
        ("step: {output: {type: 7}}", "is not a valid JSON Schema"),
        ("pipeline: other", "no pipeline 'other'; define it under pipelines"),
        ("map: {over: request.items, body: {step: {}}}", "request has text, system; name one of them"),
        ("sequence: [{name: item, step: {}}]", "item means something already"),
        ("sequence: [{name: a, step: {}}, {name: a, step: {}}]", "a is taken by an earlier part"),
        ("sequence: [{name: a, step: {}}, {map: {over: a.list, body: {step: {}}}}]", "write a.json.list"),
        ('branch: {cases: [{when: {value: request.text, matches: "(?=a)"}, then: {step: {}}}], default: {step: {}}}', "RE2"),
        ("branch: {cases: [{when: {value: request.text}, then: {step: {}}}], default: {step: {}}}", "exactly one test"),
        ("parallel: {merge: vote, quorum: 3, branches: [{step: {}}, {step: {}}]}", "above the number of branches, 2"),
        ("parallel: {merge: model, branches: [{step: {}}, {step: {}}]}", "stands with merge: model"),
        ("parallel: {merge: all, branches: [{step: {}}]}", "at least 2 items"),
        ("map: {over: request.text, body: {map: {over: item, body: {loop: {at_most: 2, body: {step: {}}}}}}}", "take 2048 steps"),
        ("{step: {}, loop: {at_most: 1, body: {step: {}}}}", "needs exactly one of step, sequence"),
        ("step: {promt: x}", 'did you mean "prompt"?'),
    ],
)
def test_what_cannot_work_is_refused_with_place_and_fix(body: str, says: str) -> None:
    text = f"  p: {body}\n" if body.startswith("{") else f"  p:\n    {body}\n"
    problem = problem_of(text)
    assert problem.startswith("baton.yaml:")
    assert ": pipelines.p" in problem
    assert says in problem
