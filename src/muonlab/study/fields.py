"""Types of the fields of configs: frozen models of plain data, and numbers within their bounds."""

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

Frozen = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class Growing(BaseModel):
    """A config that may get new fields: those in `added` are left out of its dump while they have their defaults.

    Equal configs have equal ids whatever version made them. A new field goes into `added` of its class, with a default
    under which results are as before.
    """

    model_config = Frozen
    added: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_defaults_of_added(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        idle = {
            name for name in self.added if getattr(self, name) == fields[name].get_default(call_default_factory=True)
        }
        return {name: value for name, value in dump(self).items() if name not in idle}
