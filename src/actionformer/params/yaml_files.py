"""YAML without its surprises, read in one line's words where something is wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from actionformer.errors import InputError
from actionformer.files.reading import read_text

try:
    # libyaml's: every command reads params, and the one in Python takes ten times as long
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML was built without it
    from yaml import SafeLoader  # type: ignore[assignment]

# levels of a params file
DEEPEST = 100


class _PlainYaml(SafeLoader):
    """YAML without what surprises: a key that stands twice, of which PyYAML takes the last; a time
    of day that is a number to it (1:30 is 90), an octal number, a date.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            where = f"line {key_node.start_mark.line + 1}"
            if isinstance(key, bool) or not isinstance(key, str | int | float):
                raise yaml.YAMLError(f"{where}: a key that is no text")
            if key in seen:
                raise yaml.YAMLError(f"{where}: the key {key} stands there a second time")
            seen.add(key)
        return super().construct_mapping(node, deep)


# what a value without quotes may be beside text: kind -> (pattern, what it begins with)
_KINDS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    "float": (
        r"[-+]?(([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)",
        list("-+.0123456789"),
    ),
}


def _use_plain_kinds() -> None:
    """Let the loader know these kinds alone: `yes` and `no` are texts, too."""
    _PlainYaml.yaml_implicit_resolvers = {}
    for kind, (pattern, first) in _KINDS.items():
        regex = re.compile(f"^(?:{pattern})$")
        _PlainYaml.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", regex, first)


_use_plain_kinds()


def parsed_yaml(text: str, where: str) -> Any:
    """What a YAML text says, or one line that says why nothing."""
    try:
        _refuse_deep_nesting(text)
        return yaml.load(text, _PlainYaml)
    except RecursionError:
        reason = "a value that holds itself"
    # ValueError: also of a number of 5,000 digits
    except (yaml.YAMLError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
    raise InputError(f"{where}: not readable as YAML ({reason})")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping, or one line that says why not."""
    content = parsed_yaml(read_text(path), str(path))
    if content is None:
        return {}
    if not isinstance(content, dict):
        found = type(content).__name__
        raise InputError(f"{path}: expected a mapping of keys, found {found}")
    return content


def _refuse_deep_nesting(text: str) -> None:
    """Deeper than any params file is: libyaml would run out of stack, and the process die.

    Aliases, too: a value that holds itself would have no end.
    """
    depth = 0
    for event in yaml.parse(text, SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("an alias (*), which params do without")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise yaml.YAMLError(f"nested more than {DEEPEST} deep")
