"""What an on-demand function is: the fingerprint of its code, and the refusal of code that is no pure function.

The code is read as a syntax tree and printed by our own walk over it, neither by `ast.dump`, `ast.unparse` nor from
bytecode: those differ between Python versions. Comments, formatting, docstrings, annotations and the function's own name
do not survive the parser or the walk. What a global name stands for does: a constant by its value, a function of the
repository by its own code, a library's function by its dotted name.

What runs is a copy, made of the very code and values that were read: nothing that happens to a module, a global or a
function after the declaration reaches it.
"""

from __future__ import annotations

import ast
import builtins
import copy
import hashlib
import inspect
import linecache
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import CodeType, FunctionType
from typing import NoReturn

from featurestore.declare.copied import copies, is_compiled_as_written, is_same_code
from featurestore.declare.libraries import READ_NOW, impurity, is_opened, is_users, library_name
from featurestore.declare.literals import LITERALS, canonical, has_methods, shown
from featurestore.declare.syntax import (
    Comprehension,
    Definition,
    bound,
    code_objects,
    definitions,
    parameters,
    tokens_of,
)
from featurestore.errors import DeclarationError

CHANGED = "differs from its source, which changed since it was imported", "Import it again"

ALGORITHM = "featurestore function code 1"
"""Hashed first: a change of what is hashed counts this up, and every on-demand fingerprint changes visibly."""

FORBIDDEN: dict[type[ast.AST], str] = {
    ast.Global: "has a 'global' statement. Return the value instead",
    ast.Nonlocal: "has a 'nonlocal' statement. Return the value instead",
    ast.Import: "imports inside the function. Move the import to the top of the file",
    ast.ImportFrom: "imports inside the function. Move the import to the top of the file",
    ast.ClassDef: "defines a class. Use plain functions",
    ast.AsyncFunctionDef: "defines an async function. Write a plain 'def' that only computes",
    ast.Await: "awaits. Write a plain 'def' that only computes",
}


@dataclass(frozen=True, slots=True)
class FunctionCode:
    """The identity of a function's code.

    `fingerprint` is the hex sha256 of its normalised tokens; `source` a readable listing of the same code, for diffs;
    `names` are the repository's functions in it, the function itself first; `libraries` the top-level modules of the
    libraries that it names, the standard library's and this product's included. `functions` are copies, in the order of
    `names`, that keep the code and the values which have this fingerprint; they call each other.
    """

    fingerprint: str
    source: str
    names: tuple[str, ...]
    libraries: tuple[str, ...]
    functions: tuple[FunctionType, ...] = field(compare=False, repr=False)


def code_of(function: object, *, where: str) -> FunctionCode:
    """The code of `function`, the constants it reads and the repository's functions it uses.

    `where` is the declaration's file:line, for messages. Call it once the function's module is imported: a helper below
    the function is unknown before. Raises DeclarationError for what is no pure function of its parameters, as far as
    its source shows.
    """
    functions = [_plain(function, where)]
    tokens, blocks = [ALGORITHM], []
    libraries: set[str] = set()
    readers: list[_Reader] = []
    for each in functions:  # it grows on the way: a helper joins when it is first mentioned
        reader = _Reader(each, functions, where)
        tree = reader.normalised()
        readers.append(reader)
        tokens += ["function", *tokens_of(tree.args, reader.meaning), *tokens_of(tree.body, reader.meaning)]
        constants = [f"{name} = {value}" for name, value in sorted(reader.constants.items())]
        blocks.append("\n".join([*constants, _listing(tree)]))
        libraries |= {dotted.partition(".")[0] for dotted in reader.libraries}
    return FunctionCode(
        fingerprint=hashlib.sha256("\n".join(tokens).encode()).hexdigest(),
        source="\n\n".join(blocks) + "\n",
        names=tuple(f"{each.__module__}.{each.__qualname__}" for each in functions),
        libraries=tuple(sorted(libraries)),
        functions=copies([(reader.function, reader.code, reader.read) for reader in readers]),
    )


def changed_since(code: FunctionCode, function: object, *, where: str) -> tuple[str, ...]:
    """The names of the repository's functions in `function` that have other code now than they had in `code`.

    Constants are not compared: a name that is used again, as in a loop, is no change of the code.
    """
    try:
        now = code_of(function, where=where)
    except DeclarationError:
        return code.names[:1]
    before: dict[str, FunctionType] = dict(zip(code.names, code.functions, strict=True))
    return tuple(
        name
        for name, own in zip(now.names, now.functions, strict=True)
        if name not in before or not is_same_code(own.__code__, before[name].__code__)
    )


def _listing(tree: ast.FunctionDef) -> str:
    try:
        return ast.unparse(tree)
    except ValueError:  # Python 3.11 cannot write every f-string that it can read
        return ast.dump(tree, indent=1)


def _plain(function: object, where: str) -> FunctionType:
    """The function itself, once it is known to be one whose parameters are its only inputs."""
    name = getattr(function, "__qualname__", None) or type(function).__qualname__

    def refuse(what: str) -> NoReturn:
        raise DeclarationError(f"On-demand function '{name}' {what}.", where)

    if not isinstance(function, FunctionType):
        kind = "a class" if isinstance(function, type) else f"a {type(function).__name__}, not a Python function"
        refuse(f"is {kind}. Write a plain 'def' at the top level of a module")
    code = function.__code__
    if "." in name.rpartition("<locals>.")[2]:
        refuse("is a class's method. Write a plain 'def' at the top level of a module")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        refuse("is async. Write a plain 'def' that only computes")
    if inspect.isgeneratorfunction(function):
        refuse("is a generator. Return one value")
    if code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS):
        refuse("takes *args or **kwargs. Name each parameter, for each is an input")
    return function


class _Reader(ast.NodeTransformer):
    """Reads one function: strips what does not matter, and gives each global name its meaning.

    `meaning` maps the nodes that stand for globals and defaults to their tokens, `read` the globals as they are written,
    dots included, to what they stood for; `code` is the source's, compiled.
    """

    code: CodeType

    def __init__(self, function: FunctionType, functions: list[FunctionType], where: str) -> None:
        self.function, self.functions, self.where = function, functions, where
        self.meaning: dict[ast.AST, str] = {}
        self.constants: dict[str, str] = {}
        self.read: dict[str, object] = {}
        self.libraries: set[str] = set()
        self.scopes: list[set[str]] = []

    def refuse(self, what: str, hint: str, node: ast.AST | None = None) -> NoReturn:
        code, root = self.function.__code__, self.functions[0]
        file = Path(code.co_filename)
        if file.is_relative_to(Path.cwd()):
            file = file.relative_to(Path.cwd())
        who = f"On-demand function '{root.__qualname__}'"
        if self.function is not root:
            who += f" uses '{self.function.__qualname__}', which"
        place = f"{file}:{getattr(node, 'lineno', code.co_firstlineno)}"
        raise DeclarationError(f"{who} {what} (at {place}). {hint}.", self.where)

    def normalised(self) -> ast.FunctionDef:
        tree: Definition = copy.deepcopy(self._definition())
        if isinstance(tree, ast.Lambda):
            body: list[ast.stmt] = [ast.copy_location(ast.Return(tree.body), tree)]
            lambda_ = ast.FunctionDef(name="<lambda>", args=tree.args, body=body, decorator_list=[])
            tree = ast.copy_location(lambda_, tree)
        tree.decorator_list = []  # they made the object at hand, whose own code is read
        self._set_defaults(tree.args)
        self._inside(tree)
        return tree

    def _definition(self) -> Definition:
        code = self.function.__code__
        linecache.checkcache(code.co_filename)
        text = "".join(linecache.getlines(code.co_filename, self.function.__globals__))
        hint = "Define it in a file or a notebook cell, where its code can be read"
        if not text:
            self.refuse("has no source", hint)
        try:
            found, crowded = definitions(text).get((code.co_name, code.co_firstlineno), (None, False))
        except SyntaxError:
            self.refuse("has a source that cannot be parsed", hint)
        if crowded:
            self.refuse("is not the only lambda of its statement, so its source is unclear", "Write it as a 'def'")
        if isinstance(found, ast.AsyncFunctionDef):
            self.refuse("is async", "Write a plain 'def' that only computes")
        expected = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if found is None or tuple(parameters(found.args, variadic=False)) != expected:
            self.refuse(*CHANGED)
        self.code = self._compiled(text)
        return found

    def _compiled(self, text: str) -> CodeType:
        """The function's code as its source says it, which is what it was made of, unless that changed in the meantime."""
        code, key = self.function.__code__, (self.function.__code__.co_name, self.function.__code__.co_firstlineno)
        if is_compiled_as_written(self.function):
            same = code_objects(text, code.co_filename).get(key)
            if same is None or not is_same_code(same, code):
                self.refuse(*CHANGED)
        compiled = code_objects(text, code.co_filename, annotations=False).get(key)
        if compiled is None or compiled.co_freevars != code.co_freevars:
            self.refuse(*CHANGED)
        return compiled

    def _set_defaults(self, args: ast.arguments) -> None:
        """Defaults count by value: their expressions were evaluated where the function was defined."""
        named = dict(self.function.__kwdefaults__ or {})
        positional = [arg.arg for arg in (*args.posonlyargs, *args.args)]
        values = self.function.__defaults__ or ()
        if len(values) != len(args.defaults) or set(named) - {arg.arg for arg in args.kwonlyargs}:
            self.refuse("had its defaults changed after it was defined", "Write them in its 'def'")
        last = positional[len(positional) - len(values) :]
        args.defaults = [self._default(*each) for each in zip(last, values, args.defaults, strict=True)]
        args.kw_defaults = [
            self._default(arg.arg, named[arg.arg], old) if old is not None and arg.arg in named else None
            for arg, old in zip(args.kwonlyargs, args.kw_defaults, strict=True)
        ]

    def _default(self, name: str, value: object, node: ast.expr) -> ast.expr:
        token = canonical(value)
        if token is None:
            self.refuse(f"has a default of '{name}' that is a {type(value).__name__}", f"Use one of: {LITERALS}", node)
        return self._named(node, shown(value), f"value {token}")

    def _named(self, node: ast.AST, text: str, token: str) -> ast.Name:
        name = ast.copy_location(ast.Name(id=text, ctx=ast.Load()), node)
        self.meaning[name] = token
        return name

    # --- scopes -----------------------------------------------------------------------------

    def visit(self, node: ast.AST) -> ast.AST | None:
        if type(node) in FORBIDDEN:
            what, _, hint = FORBIDDEN[type(node)].partition(". ")
            self.refuse(what, hint, node)
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            return self._nested(node)
        if isinstance(node, Comprehension):
            return self._comprehension(node)
        changed: ast.AST | None = super().visit(node)
        return changed

    def _inside(self, node: Definition) -> None:
        self.scopes.append(bound(node))
        if isinstance(node, ast.Lambda):
            node.body = self._expr(node.body)
        else:
            node.returns = None
            vars(node).pop("type_params", None)
            body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
            kept = [changed for stmt in body if isinstance(changed := self.visit(stmt), ast.stmt)]
            node.body = kept or [ast.copy_location(ast.Pass(), node)]
        for arg in ast.walk(node.args):
            if isinstance(arg, ast.arg):
                arg.annotation = None
        self.scopes.pop()

    def _expr(self, node: ast.expr) -> ast.expr:
        changed = self.visit(node)
        return changed if isinstance(changed, ast.expr) else node

    def _nested(self, node: Definition) -> Definition:
        """A function within: its decorators and defaults are evaluated outside it, its body inside."""
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = [self._expr(decorator) for decorator in node.decorator_list]
        node.args.defaults = [self._expr(default) for default in node.args.defaults]
        node.args.kw_defaults = [default and self._expr(default) for default in node.args.kw_defaults]
        self._inside(node)
        return node

    def _comprehension(self, node: Comprehension) -> Comprehension:
        first = node.generators[0]
        first.iter = self._expr(first.iter)  # the only part that is evaluated outside
        targets = [name for part in node.generators for name in ast.walk(part.target)]
        self.scopes.append({name.id for name in targets if isinstance(name, ast.Name)})
        self.generic_visit(node)
        self.scopes.pop()
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        """A local's annotation is never evaluated: `x: int = 1` is `x = 1`, and a bare `x: int` nothing."""
        if node.value is None:
            return None
        return self.generic_visit(ast.copy_location(ast.Assign(targets=[node.target], value=node.value), node))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        """Python versions cut the text between an f-string's fields differently; one piece is one piece."""
        self.generic_visit(node)
        pieces: list[ast.expr] = []
        for part in node.values:
            last = pieces[-1] if pieces else None
            if isinstance(part, ast.Constant) and isinstance(last, ast.Constant):
                pieces[-1] = ast.copy_location(ast.Constant(f"{last.value!s}{part.value!s}"), last)
            elif not (isinstance(part, ast.Constant) and part.value == ""):
                pieces.append(part)
        node.values = pieces
        return node

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.format_spec, ast.JoinedStr) and not node.format_spec.values:
            node.format_spec = None
        return node

    # --- globals ----------------------------------------------------------------------------

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        called = self.meaning.get(node.func, "").removeprefix("library ")
        texts = {each.value for each in node.args if isinstance(each, ast.Constant)}
        if called in READ_NOW and texts & {"now", "today"}:
            self.refuse(f"calls '{called}' with 'now' or 'today'", "Take RequestTime() as an input instead", node)
        if called == "datetime.datetime.fromtimestamp" and len(node.args) + len(node.keywords) < 2:
            self.refuse(f"calls '{called}' in the machine's own timezone", "Give it one, such as datetime.UTC", node)
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return self._global(node, node.id, []) if self._is_global(node) else node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        rest, base = [node.attr], node.value
        while isinstance(base, ast.Attribute):
            rest, base = [base.attr, *rest], base.value
        if isinstance(base, ast.Name) and self._is_global(base):
            if not isinstance(node.ctx, ast.Load):
                self.refuse(f"changes '{base.id}.{'.'.join(rest)}'", "Return the value instead", node)
            return self._global(node, base.id, rest)
        return self.generic_visit(node)

    def _is_global(self, node: ast.Name) -> bool:
        return node not in self.meaning and not any(node.id in scope for scope in self.scopes)

    def _global(self, node: ast.expr, path: str, rest: list[str]) -> ast.expr:
        value, closed = self._lookup(path, node)
        while rest and not closed and is_opened(value, rest[0]):
            attr, *rest = rest
            path = f"{path}.{attr}"
            if not hasattr(value, attr):
                self.refuse(f"reads '{path}', which there is not", "Correct the name", node)
            value = getattr(value, attr)
        if not closed and (library := library_name(value)):
            self.read[path] = value
            return self._library(node, ".".join([library, *rest]))
        if not closed and is_users(value):
            if rest:
                self.refuse(f"reads an attribute of the function '{path}'", "Use a constant instead", node)
            if value not in self.functions:
                self.functions.append(value)
            self.read[path] = value
            return self._named(node, value.__name__, f"function {self.functions.index(value)}")
        token = canonical(value)
        beyond = isinstance(value, Enum) and (has_methods(value) or (bool(rest) and rest[0] not in {"name", "value"}))
        if token is None or beyond:
            self._refuse_value(path, value, node, closed=closed)
        self.constants[path] = shown(value)
        self.read[path] = value
        named: ast.expr = self._named(node, path, f"value {token}")
        for attr in rest:
            named = ast.copy_location(ast.Attribute(named, attr, ast.Load()), node)
        return named

    def _lookup(self, name: str, node: ast.AST) -> tuple[object, bool]:
        """What a name stands for, and whether it is a variable of an enclosing function."""
        hint = "Define it above or import it"
        if name in self.function.__code__.co_freevars:
            cell = (self.function.__closure__ or ())[self.function.__code__.co_freevars.index(name)]
            try:
                return cell.cell_contents, True
            except ValueError:
                self.refuse(f"reads '{name}' of the function around it, which has no value yet", hint, node)
        if name.startswith("__") and name.endswith("__") and name != "__import__":
            self.refuse(f"reads '{name}', which differs between machines and runs", "Use a constant of your own", node)
        if name not in (known := vars(builtins) | self.function.__globals__):
            self.refuse(f"reads '{name}', which is not defined", hint, node)
        return known[name], False

    def _library(self, node: ast.expr, dotted: str) -> ast.expr:
        if why := impurity(dotted):
            what, _, hint = why.partition(". ")
            self.refuse(f"uses '{dotted.removeprefix('builtins.')}', {what}", hint, node)
        self.libraries.add(dotted)
        return self._named(node, dotted.removeprefix("builtins."), f"library {dotted}")

    def _refuse_value(self, path: str, value: object, node: ast.AST, *, closed: bool) -> NoReturn:
        kind = f"the class '{value.__qualname__}'" if isinstance(value, type) else f"of type '{type(value).__name__}'"
        whose = "a variable of the function around it" if closed else "a global"
        self.refuse(
            f"reads '{path}', {whose}, {kind}, whose meaning is not fixed by the code",
            f"Take it as an input, use plain functions of a module, or make it a constant of: {LITERALS}",
            node,
        )
