from __future__ import annotations

import pytest

from luthier.dataset import template_text
from luthier.dataset.template_text import Asked, Outcome, render_text

TURNS = [("user", "a"), ("assistant", "b")]


def rendered(template: str, *, prompt: bool = False, marked: bool = False, **names: str) -> Outcome:
    return render_text(template, Asked(TURNS, prompt, marked), names)


def test_text_names_prompt_and_marks():
    template = (
        "{{ bos_token }}{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    assert rendered(template, bos_token="<s>") == Outcome("<s>ab")
    assert rendered(template, prompt=True) == Outcome("ab>")
    assert rendered(template, marked=True, bos_token="<s>") == Outcome("<s>ab", [(3, 4), (4, 5)])


@pytest.mark.parametrize(
    ("template", "said", "line"),
    [
        ("x\n{{ raise_exception('no') }}", "no", 2),
        ("x\n\n{% if %}", "Expected an expression, got 'end of statement block'", 3),
        ("{{ messages[9].role }}", "list object has no element 9", 1),
        ("{{ 1 / 0 }}", "division by zero", 1),
        ("{{ ''|nosuch }}", "No filter named 'nosuch'.", 1),
    ],
)
def test_a_refusal_has_a_line(template: str, said: str, line: int):
    outcome = rendered(template)
    assert outcome.runaway is None
    assert outcome.refusal is not None
    assert outcome.refusal.startswith(said)
    assert outcome.line == line


def test_a_template_that_python_does_not_compile():
    loops = "{% for a in [1] %}" * 25 + "{% endfor %}" * 25
    assert rendered(loops) == Outcome(refusal="too many statically nested blocks")


def test_a_refusal_without_words_has_a_name():
    assert rendered("{{ raise_exception('') }}").refusal == "TemplateError"


def test_what_runs_away():
    assert rendered("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").runaway == "RecursionError"
    longest = template_text.MAX_ADDED_CHARS + 20
    assert rendered(f"{{{{ 'a' * {longest} }}}}").text == "a" * longest
    assert rendered(f"{{{{ 'a' * {longest + 1} }}}}").runaway == "1,000,021 characters of text"
