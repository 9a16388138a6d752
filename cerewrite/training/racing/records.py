"""A race's folder: one JSON line per result, appended as it comes, and the lanes' states.

A killed run leaves at most half a line, which the next one cuts off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from cerewrite.errors import OutputError, TrainingError
from cerewrite.runtime.reading import read_text
from cerewrite.training.racing.schedule import Lane, Point

SCHEMA = 1
NAME = "race.jsonl"

ADVICE = "name another folder of records, or delete this one to start afresh"


class Records:
    """What is known of a race.

    Args:
        folder: made if need be; what it holds is read, a torn last line cut off.

    Attributes:
        header: the race as it was begun: its identity, its plans, its schedule; None before.
        points: results by lane and steps.
        spent: seconds that were worked for them.

    Raises:
        TrainingError: if the file is no race's, or damaged before its end.
        OutputError: if the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / NAME
        self.header: dict[str, Any] | None = None
        self.points: dict[tuple[Lane, int], Point] = {}
        self.spent = 0.0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self.file.exists():
                self._read()
        except OSError as error:
            raise self._unwritable(error) from None

    def begin(self, header: Mapping[str, Any]) -> None:
        """Write down what race this is, before anything is trained."""
        self.header = json.loads(json.dumps(dict(header)))
        self._append({"kind": "race", "schema": SCHEMA, "race": self.header})

    def require(self, identity: Mapping[str, Any]) -> None:
        """Refuse to go on with another race's records.

        Raises:
            TrainingError: if it was begun with other settings; the message names them.
        """
        if self.header is None:
            return
        theirs = self.header.get("identity", {})
        ours = json.loads(json.dumps(dict(identity)))
        differing = [k for k in {**ours, **theirs} if ours.get(k) != theirs.get(k)]
        if differing:
            raise TrainingError(
                f"{self.folder}: holds another race: {', '.join(sorted(differing))} differ",
                advice=ADVICE,
            )

    def add(self, lane: Lane, steps: int, point: Point, seconds: float) -> None:
        """Keep one result, at once and for good."""
        self._append(
            {
                "kind": "point",
                "lane": [lane.design, lane.rate, lane.seed],
                "steps": steps,
                "point": msgspec.to_builtins(point),
                "seconds": round(seconds, 6),
            }
        )
        self.points[lane, steps] = point
        self.spent += seconds

    def state_of(self, lane: Lane) -> Path:
        """Where the state of a lane is kept."""
        name = "".join(c if c.isalnum() else f"_{ord(c):x}_" for c in lane.design)
        return self.folder / f"{name}-{lane.rate!r}-{lane.seed}.safetensors"

    def keep_states(self, lanes: Collection[Lane]) -> None:
        """Delete the states of all lanes but these."""
        kept = {self.state_of(lane).name for lane in lanes}
        for file in self.folder.glob("*-*-*.safetensors"):
            if file.name not in kept:
                file.unlink(missing_ok=True)

    def _read(self) -> None:
        text = read_text(self.file)
        whole, _, torn = text.rpartition("\n")
        if torn:  # a killed run may leave half a line: it is done again
            with self.file.open("r+b") as file:
                file.truncate(len((whole + "\n" if whole else "").encode()))
        for number, line in enumerate(filter(None, whole.split("\n")), 1):
            try:
                self._take(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise TrainingError(
                    f"{self.file}: line {number} is no record of a race: {str(error)[:200]}",
                    advice=ADVICE,
                ) from None

    def _take(self, record: dict[str, Any]) -> None:
        if record["kind"] == "race":
            if record["schema"] != SCHEMA:
                raise ValueError(f"schema {record['schema']}, this version reads {SCHEMA}")
            self.header = dict(record["race"])
            return
        design, rate, seed = record["lane"]
        lane = Lane(str(design), float(rate), int(seed))
        self.points[lane, int(record["steps"])] = msgspec.convert(record["point"], Point)
        self.spent += float(record["seconds"])

    def _append(self, record: Mapping[str, Any]) -> None:
        try:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record, allow_nan=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(
            f"{self.folder}: records cannot be written: {error.strerror or error}",
            advice="check the path, its permissions and the space left on the disk",
        )
