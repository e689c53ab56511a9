"""Histories of what clients did to a replicated database and what they were told, and a checker that reads them.

After Jepsen's way (list-append and bank workloads): every operation is recorded as invoked, then ok, failed or unknown.
A time-out is unknown, never failed.
"""

from e2e.histories.checker import Violation, check
from e2e.histories.operations import Operation, dump, load

__all__ = ["Operation", "Violation", "check", "dump", "load"]
