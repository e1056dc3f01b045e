"""A battery of checks that a user can run on an optimizer of their own: `check_optimizer(factory)`."""

from muonlab.testing.battery import CheckError, Report, check_optimizer, checks, extra_checks

__all__ = ["CheckError", "Report", "check_optimizer", "checks", "extra_checks"]
