"""What the sections of every strict YAML file are made of."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

H = TypeVar("H", bound=Hashable)


def unique(values: tuple[H, ...]) -> tuple[H, ...]:
    """`values`, each of them once.

    Raises:
        ValueError: one is there twice.
    """
    if len(set(values)) != len(values):
        raise ValueError("expected each entry once")
    return values


def no_blank(value: str) -> str:
    """`value` where it is more than spaces.

    Raises:
        ValueError: it is not.
    """
    if not value.strip():
        raise ValueError("expected text, not only spaces")
    return value


UNIQUE_ITEMS: Final[dict[str, Any]] = {"uniqueItems": True}

Limit = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]  # a share, 0 < limit <= 1
Text = Annotated[str, Field(min_length=1, max_length=4000), AfterValidator(no_blank)]
Path_ = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(no_blank)]
Keyword = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(no_blank)]


class Section(BaseModel):
    """Keys and values of a file, read strictly."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
