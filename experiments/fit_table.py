"""Measurements with their targets beside them: rows of a benchmark, as Markdown and as plain data for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Value = float | int | bool | str | None


@dataclass(frozen=True)
class Target:
    """What a measurement is to reach: at most the limit, or at least it; False is at most no, True at least yes."""

    limit: float
    at_most: bool = True

    def met(self, value: float) -> bool:
        """Whether a measurement reaches it; NaN does not."""
        return bool(value <= self.limit if self.at_most else value >= self.limit)

    def __str__(self) -> str:
        """As it stands in a table; yes and no are what they are."""
        if isinstance(self.limit, bool):
            return _text(self.limit)
        return f"{'<=' if self.at_most else '>='} {_text(self.limit)}"


@dataclass(frozen=True)
class Row:
    """Measurements of one case by column; targets of some of the columns; what the means were taken of."""

    values: Mapping[str, Value]
    targets: Mapping[str, Target] = field(default_factory=dict)
    details: Sequence[Mapping[str, Value]] = ()

    def to_dict(self) -> dict:
        """Plain data for JSON."""
        reached = {name: {"target": str(target), "met": target.met(self.values[name])}
                   for name, target in self.targets.items()}  # fmt: skip
        return {"values": dict(self.values), "targets": reached, "details": [dict(part) for part in self.details]}


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table; a target stands behind its value, and a value that misses it is bold."""
    columns = list(dict.fromkeys(name for row in rows for name in row.values))
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(_cell(row, name) for name in columns) + " |" for row in rows]
    return "\n".join(lines)


def _cell(row: Row, name: str) -> str:
    value, target = row.values.get(name), row.targets.get(name)
    if value is None or target is None:
        return _text(value)
    return f"{_text(value)} ({target})" if target.met(value) else f"**{_text(value)}** ({target})"


def _text(value: Value) -> str:
    """Three significant digits of a number; all digits before the point."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)
