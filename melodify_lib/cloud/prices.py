"""What models cost, from a table with dates and sources: ``prices.yaml``, or one's own.

An estimate is made before anything is sent, and a budget is held against it; neither is a bill.
"""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from melodify_lib.errors import BudgetError, SettingsError
from melodify_lib.nouns import first_problem
from melodify_lib.tables import read_yaml

if TYPE_CHECKING:
    from melodify_lib.settings import Settings

SHIPPED = Path(__file__).with_name("prices.yaml")
BYTES_A_TOKEN = 4
"""Of English text, on average; no tokenizer needs more tokens than there are bytes."""

CAPTION_TOKENS, DESCRIPTION_TOKENS = (715, 150), (300, 250)
"""Asked and answered, estimated: 512 × 512 pixels by patches with what is said around them; a caption."""

Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Price(BaseModel):
    """Dollars for a million tokens asked, answered and tuned on, or for a clip; when and where that was looked up.

    `thinking` is the least that a model can be told to think, in its service's own word.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Dollars
    output: Dollars
    tuning: Dollars | None = None
    clip: Dollars | None = None
    thinking: str | None = None
    checked: date
    source: str
    tuning_source: str = ""

    def of(self, input_tokens: float, output_tokens: float) -> float:
        """Dollars for so many tokens; never less than none, which would widen a budget."""
        return (max(input_tokens, 0) * self.input + max(output_tokens, 0) * self.output) / 1e6


def price(model: str, settings: Settings) -> Price:
    """The row of `model`. Raises `SettingsError`, naming the table, when there is none."""
    path = settings.prices or SHIPPED
    rows = _read(path)
    if model not in rows:
        raise SettingsError(
            f"no price for {model!r} in {path}, which has {', '.join(rows)}: look it up and add a row, "
            "or name a table of your own in MELODIFY_PRICES"
        )
    return rows[model]


def of_songs(settings: Settings, count: int) -> dict[str, float]:
    """Dollars for `count` songs, about, by each model that the settings choose and that is paid by what it makes.

    Raises `SettingsError`, naming the table, for a model without a price.
    """
    dollars = {}
    if settings.captioner == "openai":
        dollars[settings.openai_model] = count * price(settings.openai_model, settings).of(*CAPTION_TOKENS)
    if settings.describer == "gemini":
        dollars[settings.gemini_model] = count * price(settings.gemini_model, settings).of(*DESCRIPTION_TOKENS)
    if settings.musician == "lyria":
        clip = price(settings.lyria_model, settings).clip
        if clip is None:
            raise SettingsError(f"the price table has no price for a clip of {settings.lyria_model}: add one")
        dollars[settings.lyria_model] = count * clip
    return dollars


def thinking(model: str, settings: Settings) -> str | None:
    """The least that `model` can be told to think; None for a model that is not in the table, too."""
    row = _read(settings.prices or SHIPPED).get(model)
    return row.thinking if row is not None else None


def require_budget(what: str, dollars: float, budget: float | None, spent: float = 0.0) -> float:
    """The budget in dollars. Raises `BudgetError` when there is none, or the estimate of `what` does not fit in it."""
    before = f", after ${spent:.2f} that was spent before" if spent else ""
    if budget is not None and not math.isfinite(budget):
        raise BudgetError(f"a budget of {budget:g} dollars is none; give a number")
    if budget is None:
        raise BudgetError(f"{what} would cost about ${dollars:.2f}{before}; say what it may cost: --budget DOLLARS")
    if spent + dollars > budget:
        raise BudgetError(
            f"{what} would cost about ${dollars:.2f}{before}; the budget is ${budget:.2f}: raise --budget"
        )
    return budget


def _read(path: Path) -> dict[str, Price]:
    try:
        return TypeAdapter(dict[str, Price]).validate_python(read_yaml(path))
    except OSError as error:
        raise SettingsError(f"cannot read the price table {path}: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise SettingsError(f"{path}: {first_problem(error)}") from None
