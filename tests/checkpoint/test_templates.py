"""A chat template that reaches for more than messages keeps the directory out; one as models have it does not."""

from __future__ import annotations

import json
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from jinja2 import nodes
from transformers.utils.chat_template_utils import _compile_jinja_template

from quantguard.checkpoint.admit import admit
from quantguard.checkpoint.template_rules import parse
from quantguard.checkpoint.templates import MAX_TEMPLATE, refused_template
from quantguard.checkpoint.unsafe import unsafe_files
from quantguard.core.errors import UnsafeCheckpointError
from quantguard.core.finding import Severity
from tests.checkpoint.build import write_model
from tests.checkpoint.chat_templates import HONEST, HOSTILE


@pytest.mark.parametrize("case", HONEST)
def test_what_published_templates_do_is_let_through(case: str) -> None:
    assert refused_template(HONEST[case]) is None
    _compile_jinja_template(HONEST[case])  # and it is one


@pytest.mark.parametrize("case", HOSTILE)
def test_what_no_template_needs_is_refused(case: str) -> None:
    begun = monotonic()
    wrong = refused_template(HOSTILE[case])
    assert wrong is not None
    assert wrong.isprintable()
    assert len(wrong) < 600
    assert monotonic() - begun < 5


STANDS: dict[str, Any] = {
    "tokenizer_config.json": {"chat_template": "{{ x.__class__ }}"},
    "processor_config.json": {"chat_template": [{"name": "default", "template": "{{ x.__class__ }}"}]},
    "chat_template.json": {"chat_template": {"tool_use": "{{ x.__class__ }}"}},
    "components/tokenizer/tokenizer_config.json": {"a": [{"chat_template": "{{ x.__class__ }}"}]},
    "chat_template.jinja": "{{ x.__class__ }}",
    "additional_chat_templates/tool_use.jinja": "{{ x.__class__ }}",
    "Chat_Template.JINJA": "{{ x.__class__ }}",
}


@pytest.mark.parametrize("name", STANDS)
def test_it_is_found_wherever_it_stands(tmp_path: Path, name: str) -> None:
    model = write_model(tmp_path / "m")
    (model / name).parent.mkdir(parents=True, exist_ok=True)
    content = STANDS[name]
    (model / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    (finding,) = unsafe_files(model)
    assert (finding.rule, finding.where, finding.severity) == ("checkpoint.chat_template", name, Severity.HIGH)
    assert finding.message == "its chat template reaches for the attribute '__class__' (line 1)"
    with pytest.raises(UnsafeCheckpointError, match=r"checkpoint\.chat_template"):
        admit(model)


def test_of_a_key_that_occurs_twice_both_templates_are_judged(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    for text in (
        '{"chat_template": "{{ x.__a }}", "chat_template": ""}',
        '{"chat_template": "", "chat_template": "{{"}',
    ):
        (model / "tokenizer_config.json").write_text(text)
        assert [finding.rule for finding in unsafe_files(model)] == ["checkpoint.chat_template"]


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    (model / "chat_template.jinja").write_text("x" * (MAX_TEMPLATE + 1))
    assert [finding.rule for finding in unsafe_files(model)] == ["checkpoint.unreadable"]


def test_honest_templates_in_a_directory_raise_nothing(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    named = [{"name": name, "template": text} for name, text in HONEST.items()]
    (model / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    (model / "chat_template.jinja").write_text(HONEST["chatml"], encoding="utf-8")
    assert unsafe_files(model) == ()
    admit(model)


def test_the_body_of_a_generation_block_is_judged() -> None:
    assert refused_template("{% generation %}{{ x.__class__ }}{% endgeneration %}") is not None


def test_every_kind_of_node_is_known() -> None:
    """A version of jinja2 with a new way to reach something must not pass unseen."""
    kinds, pending = set(), [nodes.Node]
    while pending:
        kind = pending.pop()
        if kind.__module__ == "jinja2.nodes":
            kinds.add(kind.__name__)
        pending.extend(kind.__subclasses__())
    assert len(kinds) == 69, sorted(kinds)
    assert parse("x").body
