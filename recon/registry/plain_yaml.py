"""YAML text as plain values, of any origin: nothing in it can run for ever, fill the memory, or hide a setting."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

MOST_CHARACTERS = 2**18  # characters; the largest preset that ships has 5000
MOST_LEVELS = 32  # mappings and lists inside one another
NUMBER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")


class PlainLoader(yaml.SafeLoader):
    """`yaml.SafeLoader` without aliases, which can stand for a billion values, and with a bound on the depth.

    A key that occurs twice in a mapping is an error; YAML 1.1 reads ``1e-3`` as text, here it is a number.
    """

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """The next node; refuses aliases and whatever lies too deep."""
        if self.check_event(yaml.AliasEvent):
            raise refused("an alias is not allowed: write the value itself", self.peek_event())
        if self.depth == MOST_LEVELS:
            raise refused(f"more than {MOST_LEVELS} levels inside one another", self.peek_event())
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """The mapping at ``node``; refuses a key that it has twice."""
        made = super().construct_mapping(node, deep)
        if len(made) < len(node.value):
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            twice = next(key for place, key in enumerate(keys) if key in keys[:place])
            raise refused(f'"{twice}" is given twice', node)
        return made


PlainLoader.add_implicit_resolver("tag:yaml.org,2002:float", NUMBER, list("+-0123456789"))


def refused(why: str, at: Any) -> yaml.MarkedYAMLError:
    """The error for YAML that is valid and not accepted."""
    return yaml.MarkedYAMLError(problem=why, problem_mark=at.start_mark)


def read_plain(text: str) -> Any:
    """The value that YAML ``text`` stands for; raises `ValueError` in one line where it stands for none."""
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"it has {len(text)} characters, {MOST_CHARACTERS} are read")
    try:
        return yaml.load(text, PlainLoader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def line_at(text: str, keys: Sequence[str | int]) -> int:
    """The line, from 1, on which stands what ``keys`` lead to in YAML ``text``, or the last of them that is there."""
    node: Any = yaml.compose(text, PlainLoader)
    line = 0
    for key in keys:
        found = None
        if isinstance(node, yaml.MappingNode):
            found = next(((name, value) for name, value in node.value if name.value == str(key)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int):
            found = next(((value, value) for value in node.value[key : key + 1]), None)
        if found is None:
            break
        line, node = found[0].start_mark.line, found[1]
    return line + 1
