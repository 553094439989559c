"""A slice of a sweep: every N-th job, so that several machines share a sweep without a word to each other."""

import re
from dataclasses import dataclass

from grulab.config_error import ConfigError
from grulab.system.signals import COME_AGAIN, Interrupted


class ComeAgain(Interrupted):
    """A signal stopped a slice; everything is saved, and the slice has work left."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.exit_code = COME_AGAIN


@dataclass(frozen=True)
class Slice:
    """The jobs with the numbers index, index + count, index + 2 count, ...

    Attributes:
        index: from 0.
        count: the number of slices.
    """

    index: int
    count: int

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and number % self.count == self.index

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_slice(text: str) -> Slice:
    """Return the slice that ``--slice`` names, such as ``0/4``.

    Raises:
        ConfigError: if there is no such slice.
    """
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if found is None:
        raise ConfigError(f"--slice {text}: write I/N, such as 0/4 for the jobs 0, 4, 8, ...")
    index, count = int(found[1]), int(found[2])
    if index >= count:
        what = f"the slices are 0/{count} to {count - 1}/{count}" if count else "there have to be some slices"
        raise ConfigError(f"--slice {text}: {what}")
    return Slice(index, count)
