"""A battery of checks that a user can run on an optimizer of their own: `check_optimizer(factory)`."""

from muonlab.testing.battery import CheckError, Report, check_optimizer, checks, extra_checks
from muonlab.testing.launches import Call, Launches, count_launches, list_calls

__all__ = [
    "Call",
    "CheckError",
    "Launches",
    "Report",
    "check_optimizer",
    "checks",
    "count_launches",
    "extra_checks",
    "list_calls",
]
