"""Private parts of Hydra, read in version 1.3.8."""

from typing import Any

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra._internal.utils import get_args_parser
from hydra.core.utils import JobReturn, JobStatus

__all__ = ["BASIC_SWEEPER", "get_args_parser", "get_overrides_dirname", "raise_errors_silently", "value_or_error"]

# The ``_target_`` of hydra.sweeper for Hydra's own sweeper.
BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


def raise_errors_silently() -> None:
    """Make JobReturn.return_value raise a job's error without a line about it; grulab prints one of its own."""

    def value_or_raise(job: JobReturn) -> Any:
        if job.status == JobStatus.FAILED:
            raise value_or_error(job)
        return value_or_error(job)

    returned: Any = JobReturn
    returned.return_value = returned.return_value.getter(value_or_raise)


def value_or_error(job: JobReturn) -> Any:
    """Return the value or the exception of a job; the public property of JobReturn would print and raise it."""
    return job._return_value
