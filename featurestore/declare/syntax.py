"""The syntax tree of a function: finding it in its file, the names it binds, and its canonical printing as tokens."""

from __future__ import annotations
import __future__

import ast
import functools
import warnings
from collections.abc import Iterator
from types import CodeType

from featurestore.declare.literals import canonical

Definition = ast.FunctionDef | ast.Lambda
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp

IGNORED = frozenset({"ctx", "kind", "type_comment", "type_params", "annotation", "returns"})


@functools.lru_cache(maxsize=16)
def definitions(text: str) -> dict[tuple[str, int], tuple[Definition | ast.AsyncFunctionDef, bool]]:
    """A file's functions by name and first line as code objects have them, each with whether it is one of several there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the import has already warned
        tree = ast.parse(text)
    found: dict[tuple[str, int], tuple[Definition | ast.AsyncFunctionDef, bool]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found[node.name, first] = (node, False)
        if isinstance(node, ast.stmt):
            lambdas = [each for each in _expressions(node) if isinstance(each, ast.Lambda)]
            for each in lambdas:
                key = ("<lambda>", each.lineno)
                found[key] = (each, len(lambdas) > 1 or key in found)
    return found


@functools.lru_cache(maxsize=16)
def code_objects(text: str, file: str, *, annotations: bool = True) -> dict[tuple[str, int], CodeType]:
    """The code of a file's functions, by name and first line. annotations: whether those of functions within functions are
    evaluated when these are made."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | (0 if annotations else __future__.annotations.compiler_flag)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        todo = [compile(text, file, "exec", flags=flags, dont_inherit=True)]
    found: dict[tuple[str, int], CodeType] = {}
    while todo:
        code = todo.pop()
        found[code.co_name, code.co_firstlineno] = code
        todo += [value for value in code.co_consts if isinstance(value, CodeType)]
    return found


def kept_within(text: str, line: int, column: int, kind: str) -> tuple[str, str] | None:
    """Of a call that begins there and is a value of a dict in another call: that call's first text, and the key; None where it
    is none, or the two are not written out.

    kind: the name of the other call's function.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return None
    for outer in ast.walk(tree):
        if not isinstance(outer, ast.Call) or getattr(outer.func, "id", getattr(outer.func, "attr", None)) != kind:
            continue
        said = [*outer.args[:1], *(word.value for word in outer.keywords if word.arg == "name")]
        names = [one.value for one in said if isinstance(one, ast.Constant)]
        for node in ast.walk(outer):
            for key, value in zip(node.keys, node.values, strict=True) if isinstance(node, ast.Dict) else ():
                calls = [one for one in ast.walk(value) if isinstance(one, ast.Call)]
                if (
                    names
                    and isinstance(key, ast.Constant)
                    and (line, column) in [(one.lineno, one.col_offset) for one in calls]
                ):
                    return str(names[0]), str(key.value)
    return None


def _expressions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.stmt):
            yield child
            yield from _expressions(child)


def parameters(args: ast.arguments, *, variadic: bool = True) -> list[str]:
    """A function's parameters in its code object's order, with or without its *args and **kwargs."""
    stars = [star for star in (args.vararg, args.kwarg) if star and variadic]
    return [arg.arg for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs, *stars)]


def bound(function: Definition) -> set[str]:
    """The names that are local to a function."""
    names = set(parameters(function.args))
    todo: list[ast.AST] = [function.body] if isinstance(function, ast.Lambda) else list(function.body)
    while todo:
        node = todo.pop()
        if isinstance(node, Comprehension):  # its targets are its own, but := binds in the function
            names |= {each.target.id for each in ast.walk(node) if isinstance(each, ast.NamedExpr)}
        elif isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif not isinstance(node, ast.Lambda):
            todo += ast.iter_child_nodes(node)
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                names.add(node.id)
            elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
                names.add(node.name)
            elif isinstance(node, ast.MatchMapping) and node.rest:
                names.add(node.rest)
    return names


def tokens_of(node: object, meaning: dict[ast.AST, str]) -> Iterator[str]:
    """The canonical printing. An empty field is left out, so that one that a new Python adds changes nothing."""
    if isinstance(node, list):
        yield "["
        for each in node:
            yield from tokens_of(each, meaning)
        yield "]"
    elif isinstance(node, ast.Constant):
        yield f"value {canonical(node.value)}"
    elif isinstance(node, ast.AST) and node in meaning:
        yield meaning[node]
    elif isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for field in node._fields:
            value = getattr(node, field, None)
            if field not in IGNORED and value is not None and value != []:
                yield f".{field}"
                yield from tokens_of(value, meaning)
        yield ")"
    else:
        yield f"{node}"
