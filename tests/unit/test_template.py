"""Templates: texts of users and models are data, nothing runs, and work and output are bounded."""

import pytest

from shared.pipeline_values import Output
from shared.template import BrokenTemplateError, filled_in, names_of


def test_what_a_user_wrote_is_never_read_as_a_template() -> None:
    assert filled_in("Say: {{ request.text }}", {"request": {"text": "{{ 7 * 7 }} {% for %}"}}) == "Say: {{ 7 * 7 }} {% for %}"


def test_outputs_are_texts_with_json_beside_them() -> None:
    values = {"plan": Output('{"parts": ["a", "<b>"]}')}
    assert filled_in("{% for part in plan.json.parts %}{{ loop.index }}:{{ part }};{% endfor %}", values) == "1:a;2:<b>;"
    assert filled_in("{{ plan.json.parts | tojson }}|{{ plan | length }}", values) == '["a","<b>"]|23'
    assert filled_in("{% if plan.text == plan %}same{% endif %}", values) == "same"


@pytest.mark.parametrize("field", ["items", "values", "keys", "copy", "get", "pop", "update", "count", "index"])
def test_a_field_of_an_answer_may_have_any_name(field: str) -> None:
    values = {"order": Output(f'{{"{field}": ["pen", "ink"]}}')}
    for template in ("{{ order.json.%s | join(' ') }}", "{{ order.json['%s'] | join(' ') }}",
                     "{%% for each in order.json.%s %%}{{ each }}{%% if not loop.last %%} {%% endif %%}{%% endfor %%}"):
        assert filled_in(template % field, values) == "pen ink"


@pytest.mark.parametrize(
    "reference", ["out.json.items", "out.json['keys']", "out.json.list.count", "out.upper", "request.get", "request.text.title"]
)
def test_no_method_of_python_is_ever_a_value(reference: str) -> None:
    values = {"out": Output('{"list": []}'), "request": {"text": "hello"}}
    assert filled_in(f"{{{{ {reference} | default('none') }}}}", values) == "none"
    with pytest.raises(BrokenTemplateError):
        filled_in(f"{{{{ {reference} }}}}", values)


@pytest.mark.parametrize("field", ["index0", "cycle", "changed", "previtem"])
def test_of_a_loop_a_template_sees_what_the_page_names(field: str) -> None:
    assert filled_in("{% for x in a %}{{ loop.index }}{{ loop.first }}{{ loop.length }}{% endfor %}", {"a": "x"}) == "1True1"
    with pytest.raises(BrokenTemplateError):
        filled_in(f"{{% for x in a %}}{{{{ loop.{field} }}}}{{% endfor %}}", {"a": "xy"})


def test_the_names_a_template_takes_are_known_beforehand() -> None:
    template = "{{ a.b }}{% for x in c.json %}{{ x }}{{ loop.index }}{% endfor %}{% if d is defined %}{% endif %}"
    assert names_of(template) == {"a", "c", "d"}


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__ }}", "{{ request.__class__.__mro__ }}", "{{ request['__class__'] }}", "{{ out.json.missing }}",
        "{{ nobody }}", "{{ request.nothing }}", "{{ request.text | first | nothing }}",
        "{{ out.format }}{{ out.format_map }}{{ x }}",
    ],
)
def test_what_is_not_there_breaks_the_template_and_quotes_nothing(template: str) -> None:
    values = {"request": {"text": "my secret"}, "out": Output("my secret")}
    with pytest.raises(BrokenTemplateError) as caught:
        filled_in(template, values)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "template",
    ["{{ range(9) }}", "{{ cycler('a') }}", "{% import 'os' as os %}", "{{ 'a' * 1000000000 }}", "{{ a ** b }}",
     "{% set a = 1 %}",
     "{% macro a() %}{% endmacro %}", "{% for a in b %}{% for c in a %}{% endfor %}{% endfor %}", "{{ a | map('upper') }}",
     "{% for a in b recursive %}{{ loop(a) }}{% endfor %}", "{{ a | format('x') }}", "{{ a is callable }}"],
)
def test_a_template_cannot_say_what_could_run_long_or_call(template: str) -> None:
    with pytest.raises(BrokenTemplateError):
        names_of(template)


def test_output_is_bounded_while_it_is_made() -> None:
    values = {"items": list(range(100_000)), "text": "ä" * 1_000}
    with pytest.raises(BrokenTemplateError, match="more than 5000 bytes"):
        filled_in("{% for item in items %}{{ text }}{% endfor %}", values, bytes_max=5_000)
    assert len(filled_in("{{ text }}", values, bytes_max=2_000)) == 1_000
    with pytest.raises(BrokenTemplateError):
        filled_in("{{ text }}", values, bytes_max=1_999)
