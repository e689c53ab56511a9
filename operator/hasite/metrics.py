"""What Prometheus scrapes. Every series of an object goes away with the object."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

_SECONDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300)
_FAILOVER: Final = (0.5, 1, 2, 3, 4, 5, 6, 8, 10, 15, 30, 60)
_OBJECT: Final = ("kind", "namespace", "name")

_Object = tuple[str, str, str]


@dataclass(frozen=True)
class MemberFigures:
    """``role``: what its server is; ``unknown`` while its guard is not heard. A lag that is not known has no series.
    ``saved``: copies of what it alone had. ``conflict``: of a ring's member, whether it has stopped at one."""

    name: str
    location: str
    role: str
    lag_bytes: int | None = None
    lag_seconds: float | None = None
    saved: int = 0
    conflict: bool | None = None


@dataclass(frozen=True)
class DatabaseFigures:
    """One database now. Counts are since this process began to look. ``lease_left``: of the primary, 0 without one.
    ``synchronous``: standbys that a write waits for; None: not known. ``failover_seconds``: of the latest.
    ``votes``: by the question (vote, trial) and the answer (granted, refused). ``backup_age``: seconds since the newest
    good backup was begun; None: there is none."""

    epoch: int
    primary: str
    members: tuple[MemberFigures, ...]
    ready: int
    wanted: int
    heard: int
    lease_left: float = 0.0
    synchronous: int | None = None
    failovers: int = 0
    failover_seconds: float | None = None
    switchovers: int = 0
    votes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    backup_age: float | None = None
    backup_bytes: int | None = None


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
        self._databases = _Databases()
        self.registry.register(self._databases)

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

    def database(self, of: _Object, look: Callable[[], DatabaseFigures]) -> None:
        """``look`` is called at each scrape, until ``forget``: lag and lease are never older than that."""
        self._databases.looks[of] = look

    def leading(self, value: bool) -> None:
        """Whether this process leads."""
        self._leader.set(value)

    def forget(self, of: _Object) -> None:
        """The object is gone."""
        self.dns_published(of, ())
        del self._addresses[of]
        self._databases.looks.pop(of, None)
        for metric in (self._up, self._wanted, self._withdrawals):
            _remove(metric, *of)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(name, help_text, labels, registry=self.registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(name, help_text, labels, registry=self.registry)


_ONE: Final = _OBJECT[1:]
_MEMBER: Final = (*_ONE, "member", "location")


class _Databases(Collector):
    """Asks for the figures of each database when it is scraped."""

    def __init__(self) -> None:
        self.looks: dict[_Object, Callable[[], DatabaseFigures]] = {}

    def describe(self) -> Iterator[Metric]:
        """Without a look."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """All databases, one family after the other."""
        seen = {of[1:]: look() for of, look in self.looks.items()}
        yield from _of_databases(seen)
        yield from _of_members(seen)


_Seen = Mapping[tuple[str, str], DatabaseFigures]


def _of_databases(seen: _Seen) -> Iterator[Metric]:
    def gauge(name: str, text: str, value: Callable[[DatabaseFigures], float | None]) -> Metric:
        family = GaugeMetricFamily(f"hasite_database_{name}", text, labels=_ONE)
        for of, figures in seen.items():
            if (found := value(figures)) is not None:
                family.add_metric(of, found)
        return family

    def counter(name: str, text: str, value: Callable[[DatabaseFigures], int]) -> Metric:
        family = CounterMetricFamily(f"hasite_database_{name}", text, labels=_ONE)
        for of, figures in seen.items():
            family.add_metric(of, value(figures))
        return family

    yield gauge("epoch", "Number of the newest reign.", lambda f: f.epoch)
    yield gauge("members_ready", "Members that reign or follow.", lambda f: f.ready)
    yield gauge("members_wanted", "Members with data that the object asks for.", lambda f: f.wanted)
    yield gauge("guards_heard", "Guards that the operator is connected to and hears.", lambda f: f.heard)
    yield gauge("lease_left_seconds", "Left of the primary's lease; 0 without one.", lambda f: f.lease_left)
    yield gauge("synchronous_standbys", "Standbys that each write waits for.", lambda f: f.synchronous)
    yield counter("failovers", "Failovers seen by this process.", lambda f: f.failovers)
    yield counter("switchovers", "Planned changes of the primary seen by this process.", lambda f: f.switchovers)
    yield gauge(
        "last_failover_seconds",
        "From the first beat of the old primary that was missing to the first one of the new primary.",
        lambda f: f.failover_seconds,
    )
    yield gauge("backup_age_seconds", "Since the newest good backup was begun.", lambda f: f.backup_age)
    yield gauge("backup_size_bytes", "Of the newest good backup, as it is kept.", lambda f: f.backup_bytes)
    primary = GaugeMetricFamily("hasite_database_primary_info", "Who takes writes.", labels=(*_ONE, "member"))
    votes = CounterMetricFamily(
        "hasite_database_votes",
        "The operator's answers to candidates: votes, and trials, which only ask.",
        labels=(*_ONE, "question", "answer"),
    )
    for of, figures in seen.items():
        if figures.primary:
            primary.add_metric((*of, figures.primary), 1)
        for (question, answer), count in sorted(figures.votes.items()):
            votes.add_metric((*of, question, answer), count)
    yield primary
    yield votes


def _of_members(seen: _Seen) -> Iterator[Metric]:
    role = GaugeMetricFamily("hasite_database_member_role", "1 for what the server is.", labels=(*_MEMBER, "role"))
    size = GaugeMetricFamily("hasite_database_member_lag_bytes", "Behind the primary.", labels=_MEMBER)
    time = GaugeMetricFamily("hasite_database_member_lag_seconds", "Behind the primary.", labels=_MEMBER)
    saved = GaugeMetricFamily(
        "hasite_database_member_saved", "Copies of what this member alone had as a primary.", labels=_MEMBER
    )
    conflict = GaugeMetricFamily(
        "hasite_database_member_conflict", "Of a ring: 1 when what others wrote can't be applied.", labels=_MEMBER
    )
    for of, figures in seen.items():
        for member in figures.members:
            labels = (*of, member.name, member.location)
            role.add_metric((*labels, member.role), 1)
            saved.add_metric(labels, member.saved)
            if member.conflict is not None:
                conflict.add_metric(labels, member.conflict)
            if member.lag_bytes is not None:
                size.add_metric(labels, member.lag_bytes)
            if member.lag_seconds is not None:
                time.add_metric(labels, member.lag_seconds)
    yield from (role, size, time, saved, conflict)


def _remove(metric: MetricWrapperBase, *labels: str) -> None:
    try:
        metric.remove(*labels)
    except KeyError:
        return
