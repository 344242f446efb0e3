"""What a chat template must not do, told from its syntax tree. Nothing is rendered.

A template is a program that runs at every request. transformers renders it in a sandbox, others have not
(CVE-2024-34359), and no published template needs more than is let through here: what is not listed is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from jinja2 import Environment, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser

from quantguard.checkpoint.files import quote
from quantguard.checkpoint.template_flow import Flow, Grade

LONGEST_RANGE: Final = 100_000  # turns of one loop; jinja2's own limit
LARGEST_NUMBER: Final = 1_000_000  # token budgets go to some 100,000
LONGEST_REPEAT: Final = 10_000  # characters made by one multiplication of constants
INDENT: Final = 16  # characters that may be repeated as often as a variable says

_FUNCTIONS: Final = frozenset({"caller", "dict", "loop", "namespace", "raise_exception", "range", "strftime_now"})
_PRINTABLE: Final = frozenset({"dict", "namespace", "raise_exception", "range", "strftime_now"})
_METHODS: Final = frozenset(
    {"append", "capitalize", "changed", "copy", "count", "cycle", "endswith", "extend", "find"}
    | {"fromkeys", "get", "index", "insert", "isalnum", "isalpha", "isdigit", "islower", "isnumeric"}
    | {"isspace", "istitle", "isupper", "items", "join", "keys", "ljust", "lower", "lstrip"}
    | {"partition", "pop", "removeprefix", "removesuffix", "replace", "rfind", "rjust", "rpartition"}
    | {"rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "title", "update", "upper"}
    | {"values"}
)
_FILTERS: Final = frozenset(
    {"abs", "batch", "capitalize", "center", "count", "d", "default", "dictsort", "e", "escape"}
    | {"first", "float", "format", "groupby", "indent", "int", "items", "join", "last", "length"}
    | {"list", "lower", "map", "max", "min", "reject", "rejectattr", "replace", "reverse", "round"}
    | {"safe", "select", "selectattr", "slice", "sort", "string", "striptags", "sum", "title"}
    | {"tojson", "trim", "truncate", "unique", "upper", "urlencode", "wordcount", "wordwrap"}
)
_BY_ATTRIBUTE: Final = frozenset({"groupby", "join", "map", "max", "min", "sort", "sum", "unique"})
_BY_FIRST_ATTRIBUTE: Final = frozenset({"groupby", "rejectattr", "selectattr"})
# Objects that jinja gives to every template; each leads to its module's globals in one step.
_OBJECTS: Final = frozenset({"cycler", "joiner", "lipsum", "self", "super"})
_DUNDER: Final = re.compile(r"__[a-z]\w*\Z")  # a name of Python's machinery, or the first half of one
_WIDTH: Final = re.compile(r"%[^%a-zA-Z]*(\d{4}|\*)")  # printf-style padding to thousands of characters


class _Generation(Extension):
    """`{% generation %}`: transformers marks what the assistant said. To a judge it is its body."""

    tags = {"generation"}  # noqa: RUF012  declared so by jinja2

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def parse(text: str) -> nodes.Template:
    """The syntax tree of a template, with the extensions that transformers gives it.

    Raises:
        jinja2.TemplateSyntaxError: it is no template.
        RecursionError: nested too deep.
    """
    # Only parsed: autoescape is a matter of rendering. Not by `Environment.parse`: what that raises has been through a
    # function that jinja2 compiles and executes to put the template's lines into the traceback.
    environment = Environment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])  # noqa: S701
    return Parser(environment, text).parse()


def complaints(template: nodes.Template) -> Iterator[str]:
    """What is wrong with the template, one phrase with its line for each place.

    Raises:
        TooTangledError, RecursionError: it is deeper than any template needs to be.
    """
    flow = Flow(template)
    macros = frozenset(macro.name for macro in template.find_all(nodes.Macro))
    for node in template.find_all(nodes.Node):
        for phrase in (*_judge(node, flow, _FUNCTIONS | macros), *_handed_on(node, _PRINTABLE | macros)):
            yield f"{phrase} (line {node.lineno})"


def _handed_on(node: nodes.Node, functions: frozenset[str]) -> Iterator[str]:
    """A function as a value: its printed form and its attributes are Python's, not the conversation's."""
    parts: list[nodes.Node] = []
    match node:
        case nodes.Getattr(node=nodes.Name(name="dict"), attr="fromkeys"):
            return
        case nodes.Call(args=given):
            parts = [*given]
        case nodes.Add() | nodes.Assign() | nodes.Concat() | nodes.Filter() | nodes.Getattr() | nodes.Getitem():
            parts = list(node.iter_child_nodes())
        case nodes.For() | nodes.Keyword() | nodes.List() | nodes.Mod() | nodes.Output() | nodes.Pair() | nodes.Tuple():
            parts = list(node.iter_child_nodes())
    for part in parts:
        if isinstance(part, nodes.Name) and part.ctx == "load" and part.name in functions:
            yield f"hands on the function {quote(part.name)}"


def _judge(node: nodes.Node, flow: Flow, known: frozenset[str]) -> Iterator[str]:
    match node:
        case nodes.Import() | nodes.FromImport() | nodes.Include() | nodes.Extends():
            yield f"loads another template ({type(node).__name__.lower()})"
        case nodes.Getattr(attr=name) | nodes.NSRef(attr=name) if name.startswith("_"):
            yield f"reaches for the attribute {quote(name)}"
        case nodes.Getitem(arg=nodes.Const(value=str(name))) if name.startswith("_"):
            yield f"reaches for the item {quote(name)}"
        case nodes.Getitem(arg=name) if not isinstance(name, nodes.Slice) and flow.grade(name) is Grade.BUILT:
            yield "puts the name of an item together"
        case nodes.Name(name=name, ctx="load") if name in _OBJECTS:
            yield f"uses the object {quote(name)}"
        case nodes.Filter():  # tests answer yes or no, and jinja2 knows all of them when it compiles
            yield from _judge_filter(node)
        case nodes.Call():
            yield from _judge_call(node, known)
        case nodes.Const(value=value):
            yield from _judge_constant(value)
        case nodes.Assign(target=target, node=value):
            yield from _judge_growth(target, value)
        case nodes.Pow():
            yield "raises to a power, which makes numbers without bound"
        case nodes.Mul() | nodes.Mod():
            yield from _judge_repeat(node, flow)


def _judge_call(node: nodes.Call, known: frozenset[str]) -> Iterator[str]:
    match node.node:
        case nodes.Name(name="range") if any(_number(given) > LONGEST_RANGE for given in node.args):
            yield f"counts to more than {LONGEST_RANGE}"
        case nodes.Name(name=name) if name not in known:
            yield f"calls {quote(name)}, which no chat template has"
        case nodes.Getattr(attr="format" | "format_map" as name):
            yield f"calls the method {quote(name)}, whose text can reach any attribute"
        case nodes.Getattr(attr=name) if name not in _METHODS and not name.startswith("_"):
            yield f"calls the method {quote(name)}, which no chat template needs"
        case nodes.Getattr() | nodes.Name():
            pass
        case _:
            yield "calls what is not named"
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        yield "calls with arguments that are not written out"


def _judge_filter(node: nodes.Filter) -> Iterator[str]:
    if node.name not in _FILTERS:
        yield f"uses the filter {quote(node.name)}, which no chat template needs"
        return
    names = [keyword.value for keyword in node.kwargs if keyword.key == "attribute" and node.name in _BY_ATTRIBUTE]
    if node.name in _BY_FIRST_ATTRIBUTE:
        names += node.args[:1]
    if node.name in ("join", "sum"):
        names += node.args[1:2] if node.name == "join" else node.args[:1]
    for name in names:
        if not isinstance(name, nodes.Const):
            yield f"gives the filter {node.name} an attribute whose name is not written out"
        elif any(part.startswith("_") for part in str(name.value).split(".")):
            yield f"reaches for the attribute {quote(str(name.value))} by the filter {node.name}"
    if node.name == "map" and node.args:
        inner = node.args[0].value if isinstance(node.args[0], nodes.Const) else None
        if inner not in _FILTERS or inner in ("map", *_BY_FIRST_ATTRIBUTE):
            yield "maps with a filter that no chat template needs"
    if node.name == "format":
        yield from _judge_format(node.node)
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        yield "filters with arguments that are not written out"


def _judge_format(text: nodes.Node | None) -> Iterator[str]:
    if not isinstance(text, nodes.Const):
        return
    if isinstance(text.value, str) and _WIDTH.search(text.value):
        yield "pads text to thousands of characters"


def _judge_constant(value: object) -> Iterator[str]:
    if isinstance(value, str) and _DUNDER.match(value):
        yield f"holds {quote(value, 40)}, a name of Python's machinery"
    if isinstance(value, int | float) and abs(value) > LARGEST_NUMBER:
        yield f"holds a number above {LARGEST_NUMBER}"


def _number(node: nodes.Node) -> float:
    return abs(node.value) if isinstance(node, nodes.Const) and isinstance(node.value, int | float) else 0


def _judge_growth(target: nodes.Node, value: nodes.Node) -> Iterator[str]:
    """`x = x + x` doubles: forty rounds of a loop fill any memory."""
    name = _name(target)
    if name and _times(name, value) > 1:
        yield "joins a variable to itself, which doubles it at every turn"
    products = [node for node in (value, *value.find_all(nodes.Mul)) if isinstance(node, nodes.Mul)]
    if name and any(_name(part) == name for product in products for part in product.find_all(nodes.Node)):
        yield "multiplies a variable over and over"


def _times(name: str, value: nodes.Node | None) -> int:
    """How often the variable is part of the value, in the branch that has it most often."""
    match value:
        case nodes.Add() | nodes.Concat() | nodes.List() | nodes.Tuple():
            return sum(_times(name, part) for part in value.iter_child_nodes())
        case nodes.CondExpr(expr1=one, expr2=other):
            return max(_times(name, one), _times(name, other))
        case nodes.Filter(node=below) if value.name not in ("count", "length"):
            return _times(name, below)
        case nodes.Node() if _name(value) == name:
            return 1
        case _:
            return 0


def _name(node: nodes.Node) -> str:
    match node:
        case nodes.Name(name=name):
            return name
        case nodes.NSRef(name=name, attr=attr) | nodes.Getattr(node=nodes.Name(name=name), attr=attr):
            return f"{name}.{attr}"
        case _:
            return ""


def _judge_repeat(node: nodes.Mul | nodes.Mod, flow: Flow) -> Iterator[str]:
    if isinstance(node, nodes.Mod):
        yield from _judge_format(node.left)
        return
    for side, other in ((node.left, node.right), (node.right, node.left)):
        text = side.value if isinstance(side, nodes.Const) and isinstance(side.value, str) else None
        if not flow.grade(side) or (text is not None and len(text) <= INDENT and not isinstance(other, nodes.Const)):
            continue
        if text is None or not isinstance(other, nodes.Const) or len(text) * _number(other) > LONGEST_REPEAT:
            yield "multiplies text"
