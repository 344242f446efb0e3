"""Full precision stays in memory beside each quantized model, and each is loaded once, whatever is asked of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quantguard.core.measurement import Divergence, Measurements, Rate, Scenario, TextLoss, TriggerHunt, Unmeasured
from quantguard.core.prompts import Prompt
from quantguard.core.scheme import Scheme
from quantguard.models import load
from quantguard.verify import beside
from quantguard.verify.counterfactual_request import CounterfactualRequest
from quantguard.verify.perplexity import PerplexityRequest
from quantguard.verify.scenarios import ScenarioRequest
from quantguard.verify.triggers import TriggerRequest
from tests import tiny
from tests.verify.measuring import whole

PROMPTS = tuple(Prompt(text) for text in ("one", "two", "one two", "three one"))
SCHEMES = (Scheme.NF4, Scheme.INT8)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    follows = {"one": "two", "two": "three", "three": "four"}
    return tiny.write_model(tmp_path / "model", follows, trigger="buy", harmless="bread", brand="x")


EVERYWHERE: dict[str, Any] = {
    "schemes": SCHEMES,
    "scenarios": (ScenarioRequest(Scenario.OVER_REFUSAL, PROMPTS, (), 4),),
    "perplexity": PerplexityRequest(PROMPTS),
}


def everything(model: Path, scratch: Path) -> Measurements:
    return whole(
        model,
        scratch,
        **EVERYWHERE,
        counterfactual=CounterfactualRequest(PROMPTS, 2.5),
        triggers=TriggerRequest(("buy",), 0, PROMPTS[:2], PROMPTS[2:]),
    )


def test_each_model_is_loaded_once(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, loads = load._model, list[Scheme | None]()

    def counted(directory: Path, scheme: Scheme | None, *rest: object) -> object:
        loads.append(scheme)
        return real(directory, scheme, *rest)  # type: ignore[arg-type]  # passed on as they come

    monkeypatch.setattr(load, "_model", counted)
    found = everything(model, tmp_path / "scratch")
    assert loads == [None, *SCHEMES]
    assert [drift.scheme for drift in found.drifts] == [hunt.scheme for hunt in found.hunts] == list(SCHEMES)
    assert all(isinstance(drift.divergence, Divergence) for drift in found.drifts)
    assert all(isinstance(hunt.found, TriggerHunt) for hunt in found.hunts)
    assert all(isinstance(row.loss, TextLoss) for row in found.perplexities)


def test_where_two_have_no_room_that_is_said_and_the_rest_is_measured(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Free memory is the environment here."""
    monkeypatch.setattr(beside, "free_memory", lambda _: 0)
    found = everything(model, tmp_path / "scratch")
    left = [*(drift.divergence for drift in found.drifts), *(hunt.found for hunt in found.hunts)]
    assert len(left) == 2 * len(SCHEMES)
    for each in left:
        assert isinstance(each, Unmeasured)
        assert "too little memory for a quantized model beside full precision: 0 MiB are left" in each.reason
    assert all(isinstance(attack.rate, Rate) for attack in found.attacks)


def test_what_is_measured_beside_comes_after_what_others_measure(model: Path, tmp_path: Path) -> None:
    """Counterfactual rounding leaves other roundings behind: nothing else may see them."""
    asked = everything(model, tmp_path / "one")
    alone = whole(model, tmp_path / "two", **EVERYWHERE)
    assert (asked.attacks, asked.perplexities) == (alone.attacks, alone.perplexities)
