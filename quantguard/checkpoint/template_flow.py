"""Whether the name of an item is put together by a template: `x["__cla" ~ "ss__"]` in all its forms.

Every expression gets a grade, and so does every variable: the highest of all that is ever assigned to it, in whatever
order and scope. That is coarser than what a template does and never finer. Python's inner names begin with underscores,
so text is followed from where an underscore comes into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from jinja2 import nodes

_MAX_ROUNDS: Final = 20  # published templates settle in three


class Grade(IntEnum):
    PLAIN = 0  # a number, a flag, or what the caller gave
    TEXT = 1  # a string of the template without an underscore
    MARKED = 2  # one with an underscore, as it stands in the template
    BUILT = 3  # a string that is put together, and an underscore may be in it


class TooTangledError(ValueError):
    """Variables that depend on each other in longer chains than any template needs."""


# Of text these filters make no text, or hand on the very strings they were given.
_NUMERIC: Final = frozenset({"abs", "count", "float", "int", "length", "round", "wordcount"})
_PASSING: Final = frozenset(
    {
        "batch",
        "d",
        "default",
        "dictsort",
        "first",
        "items",
        "last",
        "list",
        "max",
        "min",
        "reject",
        "rejectattr",
        "safe",
        "select",
    }
    | {"selectattr", "slice", "sort", "string", "unique"}
)
_WITH_ARGUMENTS: Final = frozenset({"d", "default", "format", "indent", "join", "replace"})
_PASSING_METHODS: Final = frozenset({"get", "items", "keys", "pop", "rsplit", "split", "splitlines", "values"})
_JOINING_METHODS: Final = frozenset({"join", "ljust", "replace", "rjust"})
_PLAIN_METHODS: Final = frozenset({"count", "endswith", "find", "index", "isdigit", "rfind", "startswith"})

Key = tuple[str, str]  # variable and member; "" is the variable where it is no collection of the template's own
_ALL: Final = "*"  # the highest of all members of such a collection


class Flow:
    """The grades of one template's expressions."""

    def __init__(self, template: nodes.Template) -> None:
        """Settle the grades of all variables.

        Raises:
            TooTangledError: after _MAX_ROUNDS they still change.
        """
        self._grades: dict[Key, Grade] = {}
        self._seen: dict[int, Grade] = {}
        self._macros = {macro.name: macro for macro in template.find_all(nodes.Macro)}
        assigning = list(
            template.find_all((nodes.Assign, nodes.AssignBlock, nodes.For, nodes.With, nodes.Macro, nodes.CallBlock))
        )
        calls = list(template.find_all(nodes.Call))
        for _ in range(_MAX_ROUNDS):
            self._seen = {}
            before = dict(self._grades)
            for node in assigning:
                self._assign(node)
            for call in calls:
                self._pass(call)
            if before == self._grades:
                return
        raise TooTangledError("its variables depend on each other in too long chains")

    def grade(self, node: nodes.Node | None) -> Grade:
        """The grade of an expression; PLAIN for none."""
        if node is None:
            return Grade.PLAIN
        if id(node) not in self._seen:
            self._seen[id(node)] = self._look(node)
        return self._seen[id(node)]

    def _look(self, node: nodes.Node) -> Grade:
        match node:
            case nodes.Const(value=str(text)) | nodes.TemplateData(data=text):
                return Grade.MARKED if "_" in text else Grade.TEXT
            case nodes.Add(left=nodes.List() | nodes.Tuple()) | nodes.Add(right=nodes.List() | nodes.Tuple()):
                return max(map(self.grade, node.iter_child_nodes()))  # lists that are joined keep their strings
            case nodes.Concat() | nodes.Add() | nodes.Mul():
                return self._joined(list(node.iter_child_nodes()))
            case nodes.Mod(left=left):
                return Grade.BUILT if self.grade(left) else Grade.PLAIN  # "%c" makes any character of a number
            case nodes.Const() | nodes.Compare() | nodes.Not() | nodes.Test():
                return Grade.PLAIN
            case _:
                return self._reached(node)

    def _reached(self, node: nodes.Node) -> Grade:
        """The grade of what is no literal and no operation on text."""
        match node:
            case nodes.Name(name=name):
                # The texts of special tokens come from the model as well: bos_token = "__class__".
                given = Grade.BUILT if name.endswith("_token") else Grade.PLAIN
                grade = max(self._grades.get((name, ""), given), self._grades.get((name, _ALL), Grade.PLAIN))
            case (
                nodes.Getattr(node=nodes.Name(name=name), attr=str(member))
                | nodes.Getitem(node=nodes.Name(name=name), arg=nodes.Const(value=str(member)))
            ):
                grade = self._grades.get((name, member), self._grades.get((name, ""), Grade.PLAIN))
            case nodes.Getitem(node=below, arg=nodes.Slice()):
                grade = self._joined([below])
            case nodes.Getattr(node=below) | nodes.Getitem(node=below):
                grade = self.grade(below)
            case nodes.Filter():
                grade = self._filtered(node)
            case nodes.Call():
                grade = self._called(node)
            case _:  # either of two, and, or, lists, tuples, dictionaries, arithmetic
                grade = max((self.grade(child) for child in node.iter_child_nodes()), default=Grade.PLAIN)
        return grade

    def _joined(self, parts: Sequence[nodes.Node]) -> Grade:
        highest = max(map(self.grade, parts), default=Grade.PLAIN)
        return Grade.BUILT if highest >= Grade.MARKED else highest

    def _filtered(self, node: nodes.Filter) -> Grade:
        below: list[nodes.Node] = [node.node] if node.node is not None else []
        if node.name in _NUMERIC:
            return Grade.PLAIN
        if node.name in _WITH_ARGUMENTS:
            below += [*node.args, *(keyword.value for keyword in node.kwargs)]
        highest = max(map(self.grade, below), default=Grade.PLAIN)
        if node.name in _PASSING:
            return highest
        return Grade.BUILT if node.name == "format" and highest else self._joined(below)

    def _called(self, node: nodes.Call) -> Grade:
        match node.node:
            case nodes.Getattr(node=below, attr=method):
                return self._method(method, below, node.args)
            case nodes.Name(name="range" | "namespace"):
                return Grade.PLAIN
            case nodes.Name(name="dict"):
                return max((self.grade(keyword.value) for keyword in node.kwargs), default=Grade.PLAIN)
            case nodes.Name(name=name) if name in self._macros:
                return self._body(self._macros[name].body)
            case _:  # strftime_now, caller
                return self._joined(node.args)

    def _method(self, method: str, below: nodes.Node, given: Sequence[nodes.Node]) -> Grade:
        if method in _PLAIN_METHODS:
            return Grade.PLAIN
        if method in _PASSING_METHODS:
            return self.grade(below)
        return self._joined([below, *given] if method in _JOINING_METHODS else [below])

    def _body(self, body: Sequence[nodes.Node]) -> Grade:
        """What a macro or a block writes."""
        written = [part for node in body for part in (node, *node.find_all(nodes.Node))]
        outputs = [part for node in written if isinstance(node, nodes.Output) for part in node.nodes]
        # A macro that calls itself is graded by what else it writes: its own calls are not looked into again.
        return self._joined([part for part in outputs if not isinstance(part, nodes.Call)])

    def _assign(self, node: nodes.Node) -> None:
        match node:
            case nodes.Assign(target=target, node=value):
                self._bind(target, value)
            case nodes.AssignBlock(target=target, body=body):
                self._bind_grade(target, self._body(body))
            case nodes.For(target=target, iter=value):
                self._bind_grade(target, self.grade(value))
            case nodes.With(targets=targets, values=values):
                for target, value in zip(targets, values, strict=True):
                    self._bind(target, value)
            case nodes.Macro(args=names, defaults=defaults):
                for name, default in zip(names[len(names) - len(defaults) :], defaults, strict=True):
                    self._bind(name, default)
            case nodes.CallBlock(args=names):
                for name in names:
                    self._bind_grade(name, self._grades.get(("caller", _ALL), Grade.PLAIN))

    def _bind(self, target: nodes.Node, value: nodes.Node) -> None:
        """Give a variable what is known of its value: of its members one by one, where they are written out."""
        if not isinstance(target, nodes.Name):
            return self._bind_grade(target, self.grade(value))
        members: list[tuple[str, Grade]] = []
        match value:
            case nodes.Call(node=nodes.Name(name="namespace"), args=[], kwargs=given):
                members = [(keyword.key, self.grade(keyword.value)) for keyword in given]
            case nodes.Dict(items=pairs) if all(isinstance(pair.key, nodes.Const) for pair in pairs):
                members = [(str(pair.key.as_const()), self.grade(pair.value)) for pair in pairs]
                members += [(_ALL, self.grade(pair.key)) for pair in pairs]
            case nodes.Name(name=source):
                members = [(member, grade) for (name, member), grade in self._grades.items() if name == source]
            case _:
                members = [("", self.grade(value))]
        for member, grade in members:
            self._raise((target.name, member), grade)
            if member:
                self._raise((target.name, _ALL), grade)
        return None

    def _bind_grade(self, target: nodes.Node, grade: Grade) -> None:
        match target:
            case nodes.Name(name=name):
                self._raise((name, ""), grade)
            case nodes.NSRef(name=name, attr=attr):
                self._raise((name, attr), grade)
                self._raise((name, _ALL), grade)
            case nodes.Tuple(items=items) | nodes.List(items=items):
                for item in items:
                    self._bind_grade(item, grade)

    def _pass(self, call: nodes.Call) -> None:
        """What a macro is called with becomes the grade of its parameters."""
        if not isinstance(call.node, nodes.Name):
            return
        highest = max(map(self.grade, call.args), default=Grade.PLAIN)
        if call.node.name == "caller":
            self._raise(("caller", _ALL), highest)
        macro = self._macros.get(call.node.name)
        if macro is None:
            return
        for name, given in zip(macro.args, call.args, strict=False):
            self._bind(name, given)
        for keyword in call.kwargs:
            self._bind(nodes.Name(keyword.key, "store"), keyword.value)
        if len(call.args) > len(macro.args):
            self._raise(("varargs", ""), highest)

    def _raise(self, key: Key, grade: Grade) -> None:
        if grade > self._grades.get(key, Grade.PLAIN):
            self._grades[key] = grade
