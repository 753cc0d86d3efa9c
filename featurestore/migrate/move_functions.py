"""Feast's on-demand views as on-demand features: one function for each output, which calls the user's own, copied as it is."""

from __future__ import annotations

import ast
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from featurestore.declare.on_demand import OnDemand
from featurestore.errors import FeatureStoreError
from featurestore.loading.files import DefinitionFiles
from featurestore.loading.load import load
from featurestore.migrate.copied_code import (
    CopiedModule,
    UncopiedError,
    copy_function,
    copy_text,
    mentioned,
    parsed,
)
from featurestore.migrate.definition_file import DefinitionFile
from featurestore.migrate.definition_text import (
    DeclarationCall,
    VariableName,
    ViewFeatures,
    built,
    imports,
    quoted,
    text,
)
from featurestore.migrate.feast_objects import FeastOnDemand, FeastProjection
from featurestore.migrate.feast_types import meant
from featurestore.migrate.move_result import DefinitionStatement, MovedFunction, MovedView, MoveResult
from featurestore.migrate.names import Names, problem_of, variable
from featurestore.plurals import plural
from featurestore.types import FeatureType, Float32, Float64, String

FRAMES = "feast_frames"
"""The module that is written beside definitions for functions over frames."""

FRAMES_TEXT = '''"""What Feast's functions over frames are given, and what is taken of what they return."""

import pandas as pd
import pyarrow as pa


def frame_of(columns):
    """Columns by name as Feast gives them to a function: a frame of NumPy's types, NaN for null."""
    return pa.table({name: pa.array(column) for name, column in columns.items()}).to_pandas()


def output_of(frame, name, dtype):
    """One column of what a function returned, of the type that its feature has."""
    column = pd.Series(frame[name])
    return column if dtype is None else column.astype(dtype)
'''

DTYPES = {"Bool": "boolean", "Int32": "Int32", "Int64": "Int64", "Float64": "Float64"}
"""The pandas type to which a column is cast that a function returns; others are taken as they are."""


@dataclass
class _Wrapped:
    """An on-demand view on its way: what its functions take, by parameter, and how the user's function is called."""

    inputs: dict[str, tuple[str, ViewFeatures | DeclarationCall]] = field(default_factory=dict)
    """Name in Feast → parameter, and what is given for it."""
    types: dict[str, FeatureType] = field(default_factory=dict)
    views: list[str] = field(default_factory=list)


class MoveFunctions:
    """Moves on-demand views into the file of definitions.

    features: the types of features, by view and name in Feast, where they are known. inputs: names of keys and request values,
    which no feature may have. roots: the folders from which the repository's modules are imported.
    """

    def __init__(
        self, moved: MoveResult, file: DefinitionFile,
        *, features: Mapping[tuple[str, str], FeatureType], inputs: Iterable[str], roots: Sequence[Path],
    ) -> None:  # fmt: skip
        self._moved, self._file, self._types = moved, file, features
        self._names = Names(column=True, prefix="f")
        self._names.reserve(inputs)
        self._requests = Names(column=True, prefix="r")
        self._roots = roots
        self._modules: dict[str, CopiedModule] = {}
        self._module_names = Names(prefix="m")
        self._module_names.of(FRAMES)

    def move(self, views: Sequence[FeastOnDemand]) -> None:
        """Move them, in their order."""
        for view in views:
            try:
                self._move(view)
            except UncopiedError as error:
                self._moved.refuse(
                    "on-demand feature view", view.name, str(error), "write it by hand: docs/on-demand.md"
                )

    def _move(self, view: FeastOnDemand) -> None:
        if view.aggregations:
            raise UncopiedError("it aggregates rows when it is asked; a fold of a view does")
        if view.mode not in {"pandas", "python"}:
            raise UncopiedError(f"its mode is '{view.mode}'; functions of Python alone run here")
        copied, function = self._copied(view)
        own = copied[view.code.file or ""]
        words, by_name = mentioned(own, function)
        wrapped = self._wrapped(view, words, by_name=by_name)
        called = f"{own.name}.{function}"
        features: dict[str, str] = {}
        written: list[DefinitionStatement] = []
        for output in view.fields:
            said = meant(output.type)
            of = String if said.as_json or said.of is None else Float64 if said.of == Float32 else said.of
            name = self._output_name(view, output.name)
            statement = self._statement(view, wrapped, output.name, name, of, called=called)
            self._file.bind(statement.variable, self._checked(statement, wrapped, own, copied.values()))
            written.append(statement)
            features[output.name] = name
            if said.of == Float32:
                self._moved.differs(
                    name, "type", "Float32", "Float64", "nothing is rounded: what a function returns is Float64"
                )
        for place, one in copied.items():
            self._modules[place].take_over(one)
            self._moved.modules[f"{one.name}.py"] = self._modules[place].text()
        if view.mode == "pandas":
            self._moved.modules[f"{FRAMES}.py"] = FRAMES_TEXT
        self._file.add(written)
        self._moved.functions[view.name] = MovedFunction(
            view.name, features, tuple(wrapped.views),
            {one.name: (self._requests.of(one.name), one.type) for request in view.requests for one in request.fields},
            {there: one.variable for (there, _), one in zip(features.items(), written, strict=True)},
        )  # fmt: skip
        self._tell(view, features)

    def _tell(self, view: FeastOnDemand, features: Mapping[str, str]) -> None:
        if len(features) > 1:
            self._moved.differs(
                view.name, "split", f"one function of {len(features)} {plural(len(features), 'output')}", "one function for each",
                f"a feature has one function: {', '.join(features.values())} call the same one of yours",
            )  # fmt: skip
        if view.mode == "python" and not view.singleton:
            self._moved.differs(
                view.name, "rows at once", "a function is given lists of all rows", "lists of one row",
                "a value hangs on its own row alone",
            )  # fmt: skip
        if view.stored:
            self._moved.differs(
                view.name, "write_to_online_store", "computed when written, and stored", "computed at each lookup",
                "training and serving run the same code",
            )  # fmt: skip

    # --- the user's function ---------------------------------------------------------------------

    def _copied(self, view: FeastOnDemand) -> tuple[dict[str, CopiedModule], str]:
        """The function's module and those of the user's that it imports from, with nothing but what it needs, and its name."""
        code = view.code
        if code.file is None or code.name is None:
            known = self._module("", "registry", "the registry", ast.parse(""))
            module = CopiedModule(known.name, known.source, known.tree)
            return {"": module}, copy_text(module, code.text)
        copied: dict[str, CopiedModule] = {}

        def find(importing: CopiedModule, name: str, level: int) -> tuple[CopiedModule, str] | None:
            path = self._imported(importing, name, level)
            return None if path is None else self._parsed(copied, str(path))

        module, source = self._parsed(copied, code.file)
        copy_function(module, source, code.name, code.line, find=find)
        return copied, code.name

    def _parsed(self, copied: dict[str, CopiedModule], place: str) -> tuple[CopiedModule, str]:
        """A module of the user's as copied for one function, and its text."""
        path = Path(place)
        source, tree = parsed(path)
        stem = path.parent.name if path.stem == "__init__" else path.stem
        known = self._module(place, stem, path.name, tree)
        return copied.setdefault(place, CopiedModule(known.name, known.source, tree, path=path)), source

    def _imported(self, importing: CopiedModule, name: str, level: int) -> Path | None:
        """The file that a module of the user's imports from; None where it is none of the repository's."""
        parts = name.split(".") if name else []
        folders: Sequence[Path] = self._roots
        if level:
            folders = [] if importing.path is None else [importing.path.parents[level - 1]]
        for folder in folders:
            there = folder.joinpath(*parts)
            for path in (there / "__init__.py", *([there.with_suffix(".py")] if parts else [])):
                if path.is_file():
                    return path
        return None

    def _module(self, place: str, stem: str, source: str, tree: ast.Module) -> CopiedModule:
        """What is copied of a module of the user's, so far."""
        if place not in self._modules:
            self._modules[place] = CopiedModule(self._module_names.fresh(f"feast_{stem}"), source, tree)
            self._file.taken.add(self._modules[place].name)
        return self._modules[place]

    # --- what it is given ------------------------------------------------------------------------

    def _wrapped(self, view: FeastOnDemand, words: set[str], *, by_name: bool) -> _Wrapped:
        wrapped = _Wrapped()
        parameters: set[str] = {"inputs", "frame", FRAMES, self._modules[view.code.file or ""].name}
        for projection in view.inputs:
            self._take_features(wrapped, parameters, projection, words if by_name else None)
        for request in view.requests:
            for value in request.fields:
                of = meant(value.type).of or String
                name = self._request_name(view, value.name)
                self._put(wrapped, parameters, value.name, name, DeclarationCall("Request", (name, of)), of)
        if not wrapped.inputs:
            raise UncopiedError("it reads no feature and no request value that is taken over")
        return wrapped

    def _request_name(self, view: FeastOnDemand, value: str) -> str:
        """The name of a request value; UncopiedError where it is a key's, which a request brings anyway."""
        views = [self._moved.views[one.view] for one in view.inputs if one.view in self._moved.views]
        own = self._requests.of(value)
        if any(own in one.keys.values() for one in views):
            raise UncopiedError(
                f"its request value '{value}' is a key of a view that it reads; a function is given no keys"
            )
        if own != value:
            self._moved.differs(
                view.name, "name", f"request value {value}", own, problem_of(value, column=True) or "it is taken"
            )
        return own

    def _take_features(
        self, wrapped: _Wrapped, parameters: set[str], projection: FeastProjection, words: set[str] | None
    ) -> None:
        there = self._moved.views.get(projection.view)
        if there is None:
            raise UncopiedError(f"it reads view '{projection.view}', which is not taken over")
        chosen = list(projection.fields or projection.wanted or there.features)
        prefix = projection.view
        for name in chosen:
            long = f"{prefix}__{name}"
            if words is not None and name not in words and long not in words:
                continue
            if name not in there.features:
                if words is not None:
                    raise UncopiedError(f"it reads '{projection.view}:{name}', which is not taken over")
                continue
            given = ViewFeatures(selected(there, projection), (there.features[name],))
            of = self._types.get((projection.view, name), Float64)
            parameter = self._put(wrapped, parameters, name, there.features[name], given, of)
            if words is None or long in words:
                wrapped.inputs[long] = (parameter, given)
        if projection.view not in wrapped.views:
            wrapped.views.append(projection.view)

    def _put(
        self,
        wrapped: _Wrapped,
        parameters: set[str],
        name: str,
        near: str,
        given: ViewFeatures | DeclarationCall,
        of: FeatureType,
    ) -> str:
        parameter = variable(near if near.isidentifier() else "value", parameters)
        parameters.add(parameter)
        wrapped.inputs[name] = (parameter, given)
        wrapped.types[parameter] = of
        return parameter

    # --- the wrapper -----------------------------------------------------------------------------

    def _output_name(self, view: FeastOnDemand, output: str) -> str:
        own = self._names.fresh(output)
        if own != output and problem_of(output, column=True) is None:
            own = self._names.fresh(f"{view.name}_{output}")
        if own != output:
            why = "it has a name of its own, without a view before it; another, a key or a request value has this one"
            why = problem_of(output, column=True) or why
            self._moved.differs(own, "name", f"{view.name}:{output}", own, why)
        return own

    def _statement(
        self, view: FeastOnDemand, wrapped: _Wrapped, output: str, name: str, of: FeatureType, *, called: str
    ) -> DefinitionStatement:
        given: dict[str, ViewFeatures | DeclarationCall] = {}
        for parameter, item in wrapped.inputs.values():
            given.setdefault(parameter, item)
        function = variable(name, self._file.taken)
        call = DeclarationCall("on_demand", (), {"inputs": list(given.values()), "output": of})
        call = call.with_keywords(
            mode="columns" if view.mode == "pandas" else None, name=name if function != name else None,
            owner=view.owner, description=view.description, tags=view.tags,
        )  # fmt: skip
        parameters = ", ".join(given)
        lines = [
            f"@{text(call, used=1)}",
            f"def {function}({parameters}):",
            *self._body(view, wrapped, output, of, called),
        ]
        return DefinitionStatement("on-demand", function, name, call, "\n".join(lines))

    def _body(self, view: FeastOnDemand, wrapped: _Wrapped, output: str, of: FeatureType, called: str) -> list[str]:
        frame = {name: VariableName(parameter) for name, (parameter, _) in wrapped.inputs.items()}
        if view.mode == "pandas":
            dtype = DTYPES.get(of.kind)
            inputs = text(frame, indent=4, used=len(f"inputs = {FRAMES}.frame_of()"))
            taken = f"frame, {quoted(output)}, {'None' if dtype is None else quoted(dtype)}"
            return [
                f"    inputs = {FRAMES}.frame_of({inputs})",
                f"    frame = {called}(inputs)",
                f"    return {FRAMES}.output_of({taken})",
            ]
        if view.singleton:
            return [f"    inputs = {text(frame, indent=4, used=9)}", f"    return {called}(inputs)[{quoted(output)}]"]
        lists = {name: [value] for name, value in frame.items()}
        return [f"    inputs = {text(lists, indent=4, used=9)}", f"    return {called}(inputs)[{quoted(output)}][0]"]

    def _checked(
        self, statement: DefinitionStatement, wrapped: _Wrapped, own: CopiedModule, copied: Iterable[CopiedModule]
    ) -> OnDemand:
        """What a statement declares; UncopiedError where the function is none that can be declared: it reads a clock, or imports what is not installed."""
        given: dict[str, FeatureType] = {}
        for parameter, _ in wrapped.inputs.values():
            given.setdefault(parameter, wrapped.types[parameter])
        assert statement.call is not None
        call = DeclarationCall(
            "on_demand",
            (),
            {
                **statement.call.keywords,
                "inputs": [DeclarationCall("Request", (f"v_{name}", of)) for name, of in given.items()],
            },
        )
        head = [imports([call]), f"import {own.name}", f"import {FRAMES}"]
        body = statement.lines.split("\ndef ", 1)[1]
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder).resolve()
            for one in copied:
                (root / f"{one.name}.py").write_text(one.text(), encoding="utf-8")
            (root / f"{FRAMES}.py").write_text(FRAMES_TEXT, encoding="utf-8")
            file = root / "definitions.py"
            file.write_text("\n".join([*head, "", f"@{text(call)}", f"def {body}"]) + "\n", encoding="utf-8")
            try:
                (found,) = load(DefinitionFiles((file,)), root).on_demand.values()
            except FeatureStoreError as error:
                said = str(error).replace(f"{root}/", "")
                raise UncopiedError(f"its function cannot be declared: {said}") from None
        read = tuple(built(item, self._file.variables) for item in statement.call.keywords["inputs"])
        return found.model_copy(update={"inputs": read})


def selected(view: MovedView, projection: FeastProjection) -> VariableName | DeclarationCall:
    """A view, or its alias where a projection has another name or other keys."""
    own = VariableName(view.variable)
    if projection.alias is None and not projection.keys:
        return own
    name = Names().of(projection.alias or view.name)
    keys = {view.keys.get(key, key): column for key, column in projection.keys.items()}
    return DeclarationCall("alias", (name,), {"key": keys} if keys else {}, own)
