"""Types of configuration values, shared by the schemas of the run, the tasks and the launcher."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, Strict

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

# Strict: "8" is not a number and 1 is not true.
Integer = Annotated[int, Strict()]
Number = Annotated[float, Strict()]
Flag = Annotated[bool, Strict()]
# The upper bound rejects a mistyped number that would exceed the memory of any machine.
Count = Annotated[Integer, Field(ge=1, le=10**9)]
# Lightning, NumPy and Python seed their generators with 32 bits.
Seed = Annotated[Integer, Field(ge=0, lt=2**32)]
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
# What a configuration holds, as read back from JSON.
_Scalar = str | int | float | bool | None
Plain = _Scalar | list[_Scalar | list[_Scalar | list[_Scalar]]]
