"""Texts and JSON files: their content, or one line that says what is wrong with them.

Damage of any kind (nesting without end, numbers of 5,000 digits, a key that stands twice) is one
line wherever it comes.
"""

from __future__ import annotations

import json
import re
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from actionformer.errors import InputError

# of a JSON text, the end of every key; at times of a value that begins with a colon
KEY_END = re.compile(rb'"\s*:')


def brings(path: Path) -> str:
    """What to do about a file that isn't there: the project's own come by themselves."""
    if path.parts[:1] == ("data",):
        return "`dvc pull` or the fetch rule brings it"
    return "check the path"


def read_bytes(path: Path) -> bytes:
    """The content of a file, or one line that says why not."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder, expected a file") from None
    except ValueError as error:
        raise InputError(f"{str(path)!r}: no name of a file ({error})") from None


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, or one line that says why not."""
    return decoded(read_bytes(path), str(path))


def decoded(content: bytes, where: str) -> str:
    """Bytes as UTF-8 text; a mark of the byte order is left out."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: not readable as UTF-8 text ({error.reason}); get the file again"
        ) from None


def read_json(path: Path) -> Any:
    """The content of a JSON file, or one line that says why not.

    A key that stands twice is an error, NaN is not: who checks the content says where it stands.
    """
    text = read_bytes(path)
    try:
        # several times faster than json, and the same value bit for bit
        content = orjson.loads(text)
        if sum(1 for _ in KEY_END.finditer(text)) == _keys_in(content):
            return content
    except orjson.JSONDecodeError:
        pass
    try:
        content = json.loads(text.decode("utf-8"), object_pairs_hook=_one_of_each)
        # half of a pair of surrogates is no text, which nothing could write
        json.dumps(content, ensure_ascii=False).encode("utf-8")
        return content
    except RecursionError:
        reason = "nested too deep"
    except UnicodeEncodeError:
        reason = "a string holds half of a character"
    # json's own and those of digits without end are ValueErrors
    except ValueError as error:
        reason = str(error)
    raise InputError(f"{path}: not readable as JSON ({reason}); get the file again")


def _keys_in(content: Any) -> int:
    """How many keys the objects of a JSON value have in all."""
    count = 0
    level = [content]
    # level by level: value by value it would take as long as reading them
    while level:
        objects = [value for value in level if type(value) is dict]
        lists = [value for value in level if type(value) is list]
        count += sum(map(len, objects))
        below = chain(chain.from_iterable(map(dict.values, objects)), chain.from_iterable(lists))
        level = [value for value in below if type(value) in (dict, list)]
    return count


def _one_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key!r} stands twice in one object")
            seen.add(key)
    return content


def read_object(path: Path, *keys: str) -> dict[str, Any]:
    """The object that a JSON file holds, with at least these keys."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds {type(content).__name__}, expected a JSON object")
    for key in keys:
        if key not in content:
            raise InputError(f"{path}: lacks the key '{key}'; make or get the file again")
    return content
