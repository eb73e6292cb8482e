"""What a number is made of, as a tree: of files, each with what it was then and whether it is now.

results/demo/tables/thumos14.md  table, here
│    shows: thumos14_i3d
└─ results/demo/thumos14_i3d/seed0/metrics.json  metrics, the same
   └─ ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

# what became of a file since a number was made of it; HERE: it lies there, and no md5 of it was
# recorded, or it is what was asked for
SAME, CHANGED, GONE, HERE = "the same", "changed since", "gone", "here"


@dataclass(frozen=True)
class Node:
    """A file that a number was made of, or is."""

    # 'table', 'metrics', 'weights', 'publisher's file', ...
    kind: str
    name: str
    # of the constants above
    state: str
    # name -> text of what is known of it, in order
    facts: dict[str, str] = field(default_factory=dict)
    made_of: Sequence[Node] = ()

    def all(self) -> Iterator[Node]:
        """This node and everything that it is made of; what occurs twice comes twice."""
        yield self
        for part in self.made_of:
            yield from part.all()


def as_text(root: Node) -> str:
    """The tree in lines; what was shown before is named and not unfolded again."""
    return "\n".join(_lines(root, first="", rest="", shown=set())) + "\n"


def _lines(node: Node, *, first: str, rest: str, shown: set[tuple[str, str]]) -> Iterator[str]:
    again = (node.kind, node.name) in shown
    yield f"{first}{node.name}  {node.kind}, {node.state}{' (see above)' if again else ''}"
    if again:
        return
    shown.add((node.kind, node.name))
    bar = "│" if node.made_of else " "
    for name, text in node.facts.items():
        yield f"{rest}{bar}    {name}: {text}"
    for i, part in enumerate(node.made_of):
        last = i == len(node.made_of) - 1
        branch, under = ("└─ ", "   ") if last else ("├─ ", "│  ")
        yield from _lines(part, first=rest + branch, rest=rest + under, shown=shown)


def as_json(node: Node) -> dict[str, Any]:
    """The same for programs."""
    return {
        "kind": node.kind,
        "name": node.name,
        "state": node.state,
        **({"facts": node.facts} if node.facts else {}),
        **({"made_of": [as_json(part) for part in node.made_of]} if node.made_of else {}),
    }
