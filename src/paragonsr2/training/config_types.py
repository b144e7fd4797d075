"""What all sections of a configuration are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

Positive = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(gt=0.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


def within(low: float, high: float) -> AfterValidator:
    """Check that both ends of a range lie in ``low..high``."""

    def check(ends: tuple[float, float]) -> tuple[float, float]:
        if not low <= ends[0] <= ends[1] <= high:
            raise PydanticCustomError(
                "range",
                "give two numbers, the smaller first, in {low}..{high}",
                {"low": low, "high": high},
            )
        return ends

    return AfterValidator(check)


IntRange = tuple[int, int]
Range = tuple[float, float]
Crf51 = Annotated[IntRange, within(0, 51)]
Crf63 = Annotated[IntRange, within(1, 63)]
Quality = Annotated[IntRange, within(1, 100)]


class Section(BaseModel):
    """A table of a configuration file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)
