"""Types of the fields of configs: frozen models of plain data, and numbers within their bounds."""

from typing import Annotated

from pydantic import ConfigDict, Field

Frozen = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
