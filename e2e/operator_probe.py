"""The operator's process with a reconciler that only tells what it is called for: everything but HASite's own work.

``python -m e2e.operator_probe``, configured like the operator.
"""

import argparse
import logging
import sys
from collections.abc import Mapping

from hasite.api import HASite, LoadBalancerPool
from hasite.api.common import Resource
from hasite.config import Config, load
from hasite.kube.base import Kube, Leadership
from hasite.main import start
from hasite.metrics import Metrics
from hasite.reconcilers.loop import GONE, Outcome, Reconciler, Wakes

_log = logging.getLogger("probe")


class Probe:
    """Writes to the status which generation it saw, and by whom."""

    def __init__(self, kind: type[Resource], kube: Kube, leadership: Leadership, metrics: Metrics) -> None:
        self.kind = kind
        self._kube = kube
        self._leadership = leadership
        self._metrics = metrics

    async def reconcile(self, namespace: str, name: str) -> Outcome:
        """One line in the log for each call."""
        found = await self._kube.get(self.kind, namespace, name)
        generation = None if found is None else found.generation
        _log.info("reconciled", extra={"of": f"{self.kind.KIND}/{name}", "generation": generation})
        if found is None:
            return GONE
        self._metrics.locations((self.kind.KIND, namespace, name), up=2, wanted=2)
        if getattr(found, "status").observed_generation != generation:  # noqa: B009 - every kind has one
            await self._kube.write_status(found, {"observedGeneration": generation})
            await self._kube.event(found, "Normal", "Probed", f"by {self._leadership.identity}")
        return Outcome(3600)

    async def forget(self, namespace: str, name: str) -> None:
        """One line in the log."""
        _log.info("forgotten", extra={"of": f"{self.kind.KIND}/{name}"})


async def build(
    config: Config, kube: Kube, leadership: Leadership, metrics: Metrics, wakes: Wakes
) -> Mapping[type[Resource], Reconciler]:
    """A probe for two of the kinds."""
    return {kind: Probe(kind, kube, leadership, metrics) for kind in (HASite, LoadBalancerPool)}


if __name__ == "__main__":
    sys.exit(start(load(argparse.Namespace()), build))
