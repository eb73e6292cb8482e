"""history.csv: what was measured of every epoch of a training, to the last bit."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from actionformer.errors import InputError
from actionformer.files.csv_files import read_table
from actionformer.files.writing import write_text
from actionformer.training.observer import Record


def write_history(path: Path, history: Sequence[Record]) -> None:
    """One line per epoch, counted from 0; a column is empty where an epoch lacks its number."""
    names = dict.fromkeys(name for record in history for name in record)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["epoch", *names])
    for epoch, record in enumerate(history):
        table.writerow([epoch, *(record.get(name, "") for name in names)])
    write_text(path, text.getvalue())


def best_epoch(history: Sequence[Record]) -> Record | None:
    """The record of the epoch with the highest average mAP; None where no epoch was evaluated."""
    evaluated = [record for record in history if "mAP/average" in record]
    return max(evaluated, key=lambda record: record["mAP/average"], default=None)


def read_history(path: Path) -> list[Record]:
    """One record per epoch."""
    history = []
    for where, line in read_table(path, ("epoch",), empty=True):
        del line["epoch"]
        try:
            history.append({name: float(value) for name, value in line.items() if value})
        except ValueError as error:
            raise InputError(f"{where}: {error}; train again, which writes it anew") from None
    return history
