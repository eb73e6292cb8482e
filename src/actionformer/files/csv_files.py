"""Tables as csv files: read with where each line stands, written so that no cell is a formula."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actionformer.errors import InputError
from actionformer.files.reading import read_text

# what a formula begins with; not "-", with which names of videos begin
FORMULA = ("=", "+", "@", "\t", "\r")


def read_table(
    path: Path, columns: Sequence[str], *, empty: bool = False
) -> list[tuple[str, dict[str, str]]]:
    """Lines of a csv file with a header: where each stands, for messages, and its values.

    Raises:
        InputError: a column that isn't there, no line (unless it may be `empty`), one with too few
            or too many values.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    lines = []
    try:
        named = reader.fieldnames or []
        twice = [column for column, count in Counter(named).items() if count > 1]
        if twice:
            raise InputError(f"{path}: the column {twice[0]!r} stands twice; get the file again")
        lacking = [column for column in columns if column not in named]
        if lacking:
            wanted = f"expected the columns {', '.join(columns)}"
            raise InputError(f"{path}: {wanted}; missing {', '.join(lacking)}")
        for values in reader:
            where = f"{path}, line {reader.line_num}"
            if None in values or None in values.values():
                raise InputError(f"{where}: expected {len(named)} values, as the header has")
            lines.append((where, values))
    except csv.Error as error:
        wrong = f"not readable as csv ({error})"
        raise InputError(f"{path}, line {reader.line_num}: {wrong}; get the file again") from None
    if not lines and not empty:
        raise InputError(f"{path}: no line below its header; get the file again")
    return lines


def csv_cell(value: Any) -> Any:
    """A cell of a csv file; a text that a spreadsheet would run as a formula says that it is text.

    See https://owasp.org/www-community/attacks/CSV_Injection.
    """
    return f"'{value}" if isinstance(value, str) and value[:1] in FORMULA else value
