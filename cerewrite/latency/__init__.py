"""Latency: time layers on this machine once, remember it, and give it to the planner."""

from cerewrite.latency.interleave import Sample, interleave
from cerewrite.latency.store import Store
from cerewrite.latency.timer import profile

__all__ = ["Sample", "Store", "interleave", "profile"]
