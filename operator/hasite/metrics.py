"""What Prometheus scrapes. Every series of an object goes away with the object."""

from collections import defaultdict
from collections.abc import Collection
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_SECONDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300)
_FAILOVER: Final = (0.5, 1, 2, 3, 4, 5, 6, 8, 10, 15, 30, 60)
_OBJECT: Final = ("kind", "namespace", "name")

_Object = tuple[str, str, str]


class Metrics:
    """One registry of its own: two of them in one process don't meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._reconciles = self._counter("hasite_reconcile", "Reconciles by outcome.", "kind", "result")
        self._reconcile_seconds = Histogram(
            "hasite_reconcile_seconds", "Time of one reconcile.", ("kind",), buckets=_SECONDS, registry=self.registry
        )
        self._api_calls = self._counter(
            "hasite_api_calls", "Calls to a provider's API, or to the API server.", "provider", "endpoint", "status"
        )
        self._rate_limit = self._gauge(
            "hasite_api_rate_limit_remaining", "Calls left in the provider's current window.", "account"
        )
        self._up = self._gauge("hasite_locations_up", "Locations that serve.", *_OBJECT)
        self._wanted = self._gauge("hasite_locations_wanted", "Locations that the object asks for.", *_OBJECT)
        self._published = self._gauge(
            "hasite_dns_published", "1 for each address that DNS leads to.", *_OBJECT, "address"
        )
        self._withdrawals = self._counter("hasite_withdrawals", "Addresses taken out of DNS.", *_OBJECT)
        self._failover = Histogram(
            "hasite_failover_seconds",
            "From the first failed probe to the address gone from every authoritative server.",
            buckets=_FAILOVER,
            registry=self.registry,
        )
        self._events_dropped = self._counter(
            "hasite_events_dropped", "Kubernetes Events given up because too many waited for the API server."
        )
        self._leader = self._gauge("hasite_leader", "1 while this process leads.")
        self._addresses: defaultdict[_Object, set[str]] = defaultdict(set)

    def reconciled(self, kind: str, result: str, seconds: float) -> None:
        """``result``: ok, transient, permanent, unclear, error, timeout, stopped, gone."""
        self._reconciles.labels(kind, result).inc()
        self._reconcile_seconds.labels(kind).observe(seconds)

    def api_call(self, provider: str, endpoint: str, status: str) -> None:
        """``endpoint`` is a template (``GET /v2/droplets/{id}``), never a path with a name in it."""
        self._api_calls.labels(provider, endpoint, status).inc()

    def rate_limit_remaining(self, account: str, remaining: int) -> None:
        """``account`` must not be, or reveal, a token."""
        self._rate_limit.labels(account).set(remaining)

    def locations(self, of: _Object, up: int, wanted: int) -> None:
        """``of``: kind, namespace, name."""
        self._up.labels(*of).set(up)
        self._wanted.labels(*of).set(wanted)

    def dns_published(self, of: _Object, addresses: Collection[str]) -> None:
        """The whole set: an address that is in it no more loses its series."""
        for gone in self._addresses[of] - set(addresses):
            _remove(self._published, *of, gone)
        for address in addresses:
            self._published.labels(*of, address).set(1)
        self._addresses[of] = set(addresses)

    def withdrawn(self, of: _Object) -> None:
        """One address was taken out of DNS because it was down."""
        self._withdrawals.labels(*of).inc()

    def failed_over(self, seconds: float) -> None:
        """One failover ended."""
        self._failover.observe(seconds)

    def event_dropped(self) -> None:
        """One Kubernetes Event will not be seen."""
        self._events_dropped.inc()

    def leading(self, value: bool) -> None:
        """Whether this process leads."""
        self._leader.set(value)

    def forget(self, of: _Object) -> None:
        """The object is gone."""
        self.dns_published(of, ())
        del self._addresses[of]
        for metric in (self._up, self._wanted, self._withdrawals):
            _remove(metric, *of)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(name, help_text, labels, registry=self.registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(name, help_text, labels, registry=self.registry)


def _remove(metric: MetricWrapperBase, *labels: str) -> None:
    try:
        metric.remove(*labels)
    except KeyError:
        return
