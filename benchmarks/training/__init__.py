"""Does a rewritten model train better? A study that trains designs and writes docs/TRAINING.md.

    python -m benchmarks.training run [--seeds 8] [--tasks 'mlp*'] [--results FILE]
    python -m benchmarks.training report [--results FILE] [--document FILE]
    python -m benchmarks.training race [--tasks 'digits*'] [--fashion FOLDER]
    python -m benchmarks.training race-report [--document FILE]

`run` appends one JSON line per finished stack of trainings, skips what the file already holds,
and can be stopped at any time. `report` needs only the file.
`race` runs the tasks of `races.py` as races on real data, `race-report` writes docs/RACE.md from
their records.
"""
