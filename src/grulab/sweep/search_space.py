"""The values that a search may try, in Hydra's own syntax."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep

from grulab.config.overrides import parse_overrides
from grulab.config.validation_messages import shown_value
from grulab.config_error import ConfigError


@dataclass(frozen=True)
class Axis:
    """The values of one key.

    Attributes:
        key: such as ``optimizer.lr``.
        low, high: the ends of numbers, both included; None for choices.
        step: of numbers; None if all between are possible.
        is_whole: whether the numbers are whole.
        is_log: whether the logarithm is searched.
        choices: the texts of the values, in the order of the command; [] for numbers.
    """

    key: str
    low: float | int | None
    high: float | int | None
    step: float | int | None
    is_whole: bool
    is_log: bool
    choices: list[str]

    def written(self, value: Any) -> str:
        """Return a value as an override; of a number without steps, four digits that matter."""
        if self.choices:
            return f"{self.key}={value}"
        if self.is_whole:
            return f"{self.key}={int(value)}"
        assert self.low is not None
        assert self.high is not None
        rounded = float(value) if self.step is not None else min(max(float(f"{value:.4g}"), self.low), self.high)
        return f"{self.key}={rounded!r}"

    def read(self, text: str) -> Any:
        """Return the value in the text of an override; None if it is none of this axis."""
        if self.choices:
            # true and True are the same value.
            return next((choice for choice in self.choices if choice.lower() == text.lower()), None)
        try:
            value = int(text) if self.is_whole else float(text)
        except ValueError:
            return None
        assert self.low is not None
        assert self.high is not None
        is_on_step = (
            self.step is None or abs((value - self.low) / self.step - round((value - self.low) / self.step)) < 1e-6
        )
        return value if self.low <= value <= self.high and is_on_step else None

    @property
    def ends(self) -> list[Any]:
        """Values whose validity tells that of the others."""
        return self.choices or [self.low, self.high]


def parse_space(lines: Sequence[str]) -> list[Axis]:
    """Return the axes of a search.

    Args:
        lines: overrides, of which those with several values are searched: ``interval(0.1,1)``,
            ``tag(log,interval(1e-4,1e-1))``, ``range(8,129)``, ``int(interval(1,4))`` and ``a,b,c``.

    Raises:
        ConfigError: naming an override that gives no axis.
    """
    axes = {}
    for override in parse_overrides(lines):
        if override.is_sweep_override():
            # As elsewhere, the last one of a key counts.
            axes[str(override.key_or_group)] = _axis(override)
    return list(axes.values())


def _axis(override: Override) -> Axis:
    line, key, value = str(override.input_line), str(override.get_key_element()), override.value()
    if isinstance(value, Glob):
        raise ConfigError(f"{line}: is a pattern; list the values")
    if isinstance(value, ChoiceSweep):
        texts = [text.partition("=")[2] for text in (f"{key}={part}" for part in override.sweep_string_iterator())]
        if len(set(texts)) < len(texts):
            raise ConfigError(f"{line}: names a value twice")
        return Axis(key, None, None, None, is_whole=False, is_log=False, choices=texts)
    assert isinstance(value, RangeSweep | IntervalSweep)
    is_log = "log" in value.tags
    if other := sorted(value.tags - {"log"}):
        raise ConfigError(f"{line}: the tag {other[0]} has no meaning here; there is log")
    if isinstance(value, IntervalSweep):
        low, high, step = value.start, value.end, None
    else:
        low, high, step = value.start, value.stop, value.step
    if low is None or high is None:
        raise ConfigError(f"{line}: has no last value")
    is_whole = all(isinstance(part, int) for part in (low, high, step) if part is not None)
    if step is not None:
        if step <= 0 or high <= low:
            raise ConfigError(f"{line}: has no values; write range(start,stop,step) with a rising one")
        # The end of a range is not part of it.
        count = max(1, -int(-(high - low) // step))
        high = low + (count - 1) * step
    if not float("-inf") < low < high < float("inf"):
        raise ConfigError(f"{line}: must go from a number to a larger one, and goes from {low} to {high}")
    if is_log and low <= 0:
        raise ConfigError(f"{line}: has no logarithm at {shown_value(low)}; begin above 0")
    if is_log and step not in (None, 1):
        raise ConfigError(f"{line}: log and a step of {step} do not go together; leave out one")
    return Axis(key, low, high, None if is_log else step, is_whole, is_log, [])
