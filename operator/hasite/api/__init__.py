"""The custom resources of ``hasite.dev/v1alpha1``: the one source of CRDs, reference pages and examples."""

from hasite.api.common import GROUP, VERSION, Condition, Location
from hasite.api.hasite import HASite, HASiteSpec, HASiteStatus
from hasite.api.loadbalancerpool import LoadBalancerPool, LoadBalancerPoolSpec, LoadBalancerPoolStatus
from hasite.api.replicateddatabase import ReplicatedDatabase

__all__ = [
    "GROUP",
    "VERSION",
    "Condition",
    "HASite",
    "HASiteSpec",
    "HASiteStatus",
    "LoadBalancerPool",
    "LoadBalancerPoolSpec",
    "LoadBalancerPoolStatus",
    "Location",
    "ReplicatedDatabase",
]
