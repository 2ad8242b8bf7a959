"""Comparisons on ``adata.obs`` written as text; nothing in them is ever run as a program."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from spacetravlr._types import Bools

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip
# text in quotes stays as it is; then a name in backticks, and what pandas writes for "and", "or", "not"
_TOKEN = re.compile(r"""('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|`([^`]*)`|([&|~@])""")
_WORDS = {"&": " and ", "|": " or ", "~": " not "}


def query_mask(query: str, obs: pd.DataFrame) -> Bools:
    """Cells for which a comparison on the columns of ``obs`` holds.

    Comparisons (``==``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``in``, ``not in``) of columns with numbers, text, lists
    or other columns are joined by ``and``, ``or``, ``not`` and parentheses. A column of booleans stands for itself,
    ```a name with spaces``` is put in backticks, and ``index`` is the name of the cell.

    Raises
    ------
    ValueError
        If the text is something else, or names a column that is not there.
    """
    columns = ", ".join(map(repr, list(obs.columns)[:10])) or "none"
    if query in obs.index:
        msg = (
            f"Expected `cells` to be a mask, a list of names or a comparison on adata.obs, found the name `{query!r}`; "
            "pass a list."
        )
        raise ValueError(msg)
    try:
        return _Query(obs).run(query)
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        msg = (
            f"Expected `cells` to be a comparison on adata.obs such as \"cell_type == 'B'\", found `{query!r}` "
            f"({reason}); columns are {columns}."
        )
        raise ValueError(msg) from error


class _Query:
    def __init__(self, obs: pd.DataFrame) -> None:
        self.obs = obs
        self.quoted: dict[str, str] = {}

    def run(self, query: str) -> Bools:
        text = _TOKEN.sub(self._replace, query).strip()
        return self._mask(ast.parse(text, mode="eval").body)

    def _replace(self, match: re.Match[str]) -> str:
        text, name, sign = match.groups()
        if sign == "@":
            msg = "names with @ are not supported: write the value itself, or pass a mask"
            raise ValueError(msg)
        if name is not None:
            placeholder = f"_column_{len(self.quoted)}"
            while placeholder in self.obs.columns:
                placeholder += "_"
            self.quoted[placeholder] = name
            return f" {placeholder} "
        return _WORDS[sign] if sign else text

    def _mask(self, node: ast.expr) -> Bools:
        if isinstance(node, ast.BoolOp):
            combine = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            return np.asarray(combine.reduce([self._mask(value) for value in node.values]), dtype=bool)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self._mask(node.operand)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            parts = [self._compare(*part) for part in zip(sides, node.ops, sides[1:], strict=False)]
            return np.asarray(np.logical_and.reduce(parts), dtype=bool)
        if isinstance(node, ast.Name):
            values = self._column(node.id)
            if pd.api.types.infer_dtype(values, skipna=True) != "boolean":
                msg = f"column {self.quoted.get(node.id, node.id)!r} does not hold booleans"
                raise ValueError(msg)
            return self._bools(values.fillna(False))
        msg = f"{ast.unparse(node)!r} is not a comparison"
        raise ValueError(msg)

    def _compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Bools:
        a, b = self._value(left), self._value(right)
        if not isinstance(a, pd.Series) and not isinstance(b, pd.Series):
            msg = f"neither {ast.unparse(left)!r} nor {ast.unparse(right)!r} is a column"
            raise ValueError(msg)
        if isinstance(b, list) and isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn):
            chosen = self._bools(a.isin(b))
            return chosen if isinstance(op, ast.Eq | ast.In) else ~chosen
        if type(op) not in _COMPARE or isinstance(a, list) or isinstance(b, list):
            msg = f"{ast.unparse(ast.Compare(left, [op], [right]))!r} is not a supported comparison"
            raise ValueError(msg)
        return self._bools(_COMPARE[type(op)](a, b))

    def _value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name):
            return self._column(node.id)
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            return [self._constant(entry) for entry in node.elts]
        return self._constant(node)

    def _constant(self, node: ast.expr) -> Any:
        try:
            value = ast.literal_eval(node)
        except ValueError:
            value = None
        if not isinstance(value, str | int | float):
            msg = f"{ast.unparse(node)!r} is neither a column, nor a number, nor text in quotes"
            raise ValueError(msg)
        return value

    def _column(self, name: str) -> pd.Series:
        name = self.quoted.get(name, name)
        if name in self.obs.columns:
            column = self.obs[name]
            if isinstance(column, pd.DataFrame):
                msg = f"more than one column is called {name!r}"
                raise ValueError(msg)
            unordered = isinstance(column.dtype, pd.CategoricalDtype) and not column.cat.ordered
            return column.astype(object).infer_objects() if unordered else column
        if name == "index":
            return self.obs.index.to_series()
        msg = f"no column is called {name!r}"
        raise ValueError(msg)

    @staticmethod
    def _bools(values: pd.Series) -> Bools:
        return values.astype("boolean").fillna(False).to_numpy(dtype=bool)
