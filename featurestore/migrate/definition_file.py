"""The file of definitions while it is made: its statements, the variables that it has, and what each of them declares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from featurestore.migrate.definition_text import DeclarationCall, built
from featurestore.migrate.move_result import DefinitionStatement
from featurestore.migrate.names import variable


class DefinitionFile:
    """Takes definitions in, each once. statements: those of the file, to which it adds.

    taken: names that a variable may not have any more. variables: what each variable declares.
    """

    def __init__(self, statements: list[DefinitionStatement]) -> None:
        self._statements = statements
        self._known: dict[tuple[str, str], str] = {}
        self.taken = {"datetime", "UTC", "on_demand"}
        self.variables: dict[str, Any] = {}

    def declare(self, section: str, name: str, other: str, call: DeclarationCall) -> str:
        """The variable of a definition, which is written when it is first asked for. other: what it is called where the name is
        another's. Raises FeatureStoreError where the call declares nothing that can be."""
        known = self._known.get((section, name))
        if known is not None:
            return known
        own = variable(name if name not in self.taken else other, self.taken | DECLARATIONS)
        self.bind(own, built(call, self.variables))
        self.add([DefinitionStatement(section, own, name, call)])
        self._known[section, name] = own
        return own

    def bind(self, own: str, declared: Any) -> None:
        """Give a variable to what is declared."""
        self.variables[own] = declared
        self.taken.add(own)

    def add(self, statements: Sequence[DefinitionStatement]) -> None:
        """Take in statements of variables that are bound."""
        self._statements += statements

    def withdraw(self, section: str, name: str) -> None:
        """Take a definition back."""
        self._known.pop((section, name), None)
        self._statements[:] = [one for one in self._statements if (one.section, one.name) != (section, name)]


DECLARATIONS = frozenset(
    {
        "Entity", "ParquetSource", "PushSource", "FeatureView", "FeatureService", "Request", "Latest", "First", "Count", "Sum", "Mean",
        "Min", "Max", "Var", "StdDev", "CountDistinct", "Array", "Bool", "Bytes", "Date", "Decimal", "Float32", "Float64", "Int32",
        "Int64", "String", "Timestamp", "on_demand", "datetime", "UTC",
    }
)  # fmt: skip
"""Names that a file of definitions may import."""
