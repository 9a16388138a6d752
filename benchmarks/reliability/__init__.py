"""What hostile files, requests and neighbours can do: tried, counted, written down.

``python -m benchmarks.reliability`` runs every registered group and writes docs/RELIABILITY.md. A
group is one function in one module of this package, with `benchmarks.reliability.group.register`.
"""
