"""Languages and scripts: what is certain is told, what is too short is left open, another script is always seen."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantguard.verify.language import LANGUAGES, language, scripts

SAID = {
    "en": "The train to the coast leaves at seven in the morning and arrives before lunch.",
    "de": "Der Zug an die Küste fährt um sieben Uhr morgens ab und kommt vor dem Mittagessen an.",
    "fr": "Le train pour la côte part à sept heures du matin et arrive avant le déjeuner.",
    "es": "El tren a la costa sale a las siete de la mañana y llega antes de la comida.",
    "it": "Il treno per la costa parte alle sette del mattino e arriva prima di pranzo.",
    "pt": "O comboio para a costa parte às sete da manhã e chega antes do almoço.",
    "nl": "De trein naar de kust vertrekt om zeven uur 's ochtends en komt voor de lunch aan.",
    "pl": "Pociąg na wybrzeże odjeżdża o siódmej rano i przyjeżdża przed obiadem.",
    "sv": "Tåget till kusten går klockan sju på morgonen och kommer fram före lunch.",
    "tr": "Sahile giden tren sabah yedide kalkıyor ve öğle yemeğinden önce varıyor.",
    "ru": "Поезд к морю отправляется в семь утра и прибывает до обеда.",
    "uk": "Потяг до моря вирушає о сьомій ранку і прибуває до обіду.",
    "el": "Το τρένο για την ακτή φεύγει στις επτά το πρωί και φτάνει πριν από το μεσημέρι.",
    "ja": "海岸へ行く電車は朝七時に出発し、昼食の前に到着します。",
    "zh": "开往海边的火车早上七点出发,午饭前到达。",
    "ko": "해안으로 가는 기차는 아침 일곱 시에 출발하여 점심 전에 도착합니다.",
    "ar": "يغادر القطار المتجه إلى الساحل في السابعة صباحا ويصل قبل الغداء.",
}


@pytest.mark.parametrize("code", sorted(SAID))
def test_a_sentence_is_told_by_its_language(code: str) -> None:
    assert code in LANGUAGES.split()
    assert language(SAID[code]) == code


@pytest.mark.parametrize("text", ["", "42", "No.", "Paris", "A. B. C.", "??!", "\ud800", "```python\nprint(1)\n```"])
def test_what_has_no_certain_language_is_left_open(text: str) -> None:
    assert language(text) is None


def test_fenced_code_has_no_language() -> None:
    assert language(f"{SAID['fr']}\n```\nfor row in table: print(row)\n```") == "fr"
    assert scripts("```\nпривет\n```") == frozenset()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Paris", {"LATIN"}),
        ("да", {"CYRILLIC"}),
        ("Ｐａｒｉｓ", {"LATIN"}),  # full width
        ("海へ行くデンシャ", {"CJK"}),
        ("The word is 海", {"LATIN"}),
        ("yes 是的 好", {"LATIN", "CJK"}),
        ("42 + 1", set()),
    ],
)
def test_a_single_letter_has_a_script_and_a_name_makes_no_other(text: str, found: set[str]) -> None:
    assert scripts(text) == found


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_taken_and_always_told_the_same(text: str) -> None:
    assert language(text) == language(text)
    assert language(text) is None or language(text) in LANGUAGES.split()
