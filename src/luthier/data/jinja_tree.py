"""The syntax tree of a chat template, rewritten before it is compiled: whatever repeats or grows is charged.

Jinja compiles operators to Python's own and loops to Python's loops. Here each of them becomes a call of the
function in `jinja_guards` that pays for it, and the body of every loop and macro begins with a `tick` that
pays for all that stands in it. What can neither repeat nor grow stays as it is, and as fast.
"""

from __future__ import annotations

from typing import Any

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from luthier.data.jinja_budget import SMALL, refused

_OPERATORS = {nodes.Mul: "*", nodes.Pow: "**", nodes.Mod: "%", nodes.Sub: "-"}
_FOREIGN = (
    nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends, nodes.Block,
    nodes.ScopedEvalContextModifier,
)  # fmt: skip
_WEIGHTS: dict[type[nodes.Node], int] = {nodes.Dict: 10, nodes.List: 3, nodes.Tuple: 3, nodes.Macro: 10}
"""Steps of what leaves something behind in memory; everything else is one step."""
_OWN: dict[type[nodes.Node], tuple[str, ...]] = {
    nodes.For: ("target", "body"),
    nodes.Macro: ("args", "defaults", "body"),
    nodes.CallBlock: ("args", "defaults", "body"),
}
"""What runs again with every round or call."""


def metered(tree: nodes.Template) -> nodes.Template:
    """The tree with guards in it. Raises TemplateError for tags that no chat template needs."""
    for node in tree.find_all(_FOREIGN):
        raise refused(
            f"uses `{type(node).__name__.lower()}` in line {node.lineno}; a chat template stands alone"
        )
    environment = tree.environment
    made: nodes.Template = _Guards().visit(tree)
    _meter(made)
    if environment is not None:
        made.set_environment(environment)
    return made


def _call(name: str, node: nodes.Expr, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, [*args], [], None, None, lineno=node.lineno)


def _flat(node: nodes.Expr) -> list[nodes.Expr]:
    """The terms of a + b + c, from left to right."""
    terms: list[nodes.Expr] = []
    while isinstance(node, nodes.Add):
        terms.append(node.right)
        node = node.left
    return [node, *reversed(terms)]


def _cheap(node: nodes.Expr) -> bool:
    """Whether an expression is known to be short: comparing it with anything costs nothing."""
    if isinstance(node, (nodes.List, nodes.Tuple)):
        return all(isinstance(item, nodes.Const) for item in node.items)
    return isinstance(node, (nodes.Const, nodes.Not, nodes.Compare, nodes.Test))


def _shown(node: nodes.Expr) -> nodes.Expr:
    """What stands between `{{` and `}}`: a text of the template's own, or a value that is charged."""
    if isinstance(node, nodes.Const) and isinstance(node.value, str):
        return nodes.TemplateData(node.value, lineno=node.lineno)
    if isinstance(node, nodes.Filter) and node.name == "+":
        node.name = "{+}"
        return node
    return node if isinstance(node, nodes.TemplateData) else _call("{}", node)


def _handed_on(name: str, body: list[nodes.Node]) -> bool:
    """Whether a variable is used as a value of its own, not only by its attributes or by calling it."""
    of: set[int] = set()
    for node in body:
        of.update([id(found.node) for found in node.find_all(nodes.Getattr)])
        of.update([id(found.node) for found in node.find_all(nodes.Call)])
    return any(
        found.name == name and id(found) not in of for node in body for found in node.find_all(nodes.Name)
    )


class _Guards(NodeTransformer):
    """Replaces operators by calls that pay for them."""

    def visit_Add(self, node: nodes.Add) -> nodes.Node:
        first, *rest = [self.visit(term) for term in _flat(node)]
        return _call("+", first, *rest)

    def _operator(self, node: nodes.BinExpr) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node, nodes.Sub) and isinstance(node.right, nodes.Const) and node.right.value == 1:
            return node
        return _call(_OPERATORS[type(node)], node.left, node.right)

    visit_Mul = visit_Pow = visit_Mod = visit_Sub = _operator

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        if _handed_on("loop", node.body):
            values: Any = node.iter
            node.iter = _call("(for)", values)
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [_shown(part) for part in node.nodes]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call("~", *node.nodes)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        none = nodes.Const(None, lineno=node.lineno)
        return _call("[:]", node.node, *[x or none for x in (node.arg.start, node.arg.stop, node.arg.step)])

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        operands = [node.expr, *(operand.expr for operand in node.ops)]
        searching = any(operand.op in ("in", "notin") for operand in node.ops)
        cheap = [_cheap(operand) for operand in operands]
        self.generic_visit(node)
        if any(cheap) and len(node.ops) == 1 and not searching:
            return node
        if not cheap[0]:
            node.expr = _call("==", node.expr)
        for operand, is_cheap in zip(node.ops, cheap[1:], strict=True):
            if not is_cheap:
                operand.expr = _call(" in" if operand.op in ("in", "notin") else "==", operand.expr)
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.key, nodes.Const):
            node.key = _call("==", node.key)
        return node


def _tick(cost: tuple[int, int], line: int) -> nodes.Filter:
    steps, characters = cost
    return _call("(tick)", nodes.Const(steps, lineno=line), nodes.Const(characters, lineno=line))


def _meter(node: nodes.Node) -> tuple[int, int]:
    """Put ticks below `node`; returns the steps and characters that whoever runs `node` has to pay.

    Loops and macros pay for their own bodies. So does a branch that writes long texts, because others may
    be taken instead.
    """
    if isinstance(node, nodes.TemplateData):
        return 0, len(node.data)
    once, again = (_WEIGHTS.get(type(node), 1), 0), (1, 0)
    own = _OWN.get(type(node), ())
    for name, value in node.iter_fields():
        cost = _below(value)
        if name in own:
            again = _plus(again, cost)
        elif isinstance(node, nodes.For) and name == "test" and value is not None:
            node.test = nodes.And(_tick(cost, node.lineno), value, lineno=node.lineno)
        elif isinstance(node, nodes.If) and name in ("body", "else_") and cost[1] > SMALL:
            value.insert(0, nodes.ExprStmt(_tick(cost, node.lineno), lineno=node.lineno))
        else:
            once = _plus(once, cost)
    if isinstance(node, (nodes.For, nodes.Macro, nodes.CallBlock)):
        node.body.insert(0, nodes.ExprStmt(_tick(again, node.lineno), lineno=node.lineno))
    return once


def _plus(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return one[0] + other[0], one[1] + other[1]


def _below(value: Any) -> tuple[int, int]:
    """What the nodes in a field of a node cost."""
    total = (0, 0)
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, nodes.Node):
            total = _plus(total, _meter(item))
    return total
