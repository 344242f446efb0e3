"""The policy's section on waivers: for how long, by whom, and of what."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, Field

from quantguard.policy.section import UNIQUE_ITEMS, Keyword, Section, unique

MAX_DAYS: Final = 90  # no policy lets a waiver last for longer


class Approval(Section):
    """Who may waive which rules."""

    rules: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9*?][A-Za-z0-9._/*?-]*$", max_length=200)], ...],
        Field(min_length=1, max_length=100, json_schema_extra=UNIQUE_ITEMS),
        AfterValidator(unique),
    ]  # rules as a waiver names them; * stands for any characters, ? for one
    by: Annotated[
        tuple[Keyword, ...],
        Field(min_length=1, max_length=100, json_schema_extra=UNIQUE_ITEMS),
        AfterValidator(unique),
    ]  # approvers as a waiver names them


class WaiverRules(Section):
    max_days: Annotated[int, Field(ge=1, le=MAX_DAYS)] = MAX_DAYS  # after today, that a waiver may last at most
    inconclusive: bool = False  # whether what could not be measured may be waived too
    # With none anybody may approve; otherwise only these, and a rule that none of them names cannot be waived.
    approvals: Annotated[tuple[Approval, ...], Field(max_length=100)] = ()
