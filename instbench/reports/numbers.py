"""How a number is written, in every table and page."""

from __future__ import annotations

__all__ = ["format_number"]


def format_number(value: float, unit: str, *, signed: bool = False) -> str:
    """Fractions with three decimals, others with four digits, zeros at the end included, so that columns are even.

    Args:
        value: The number.
        unit: "fraction", or another.
        signed: Write a plus too, for differences.
    """
    sign = "+" if signed else ""
    return f"{value:{sign}.3f}" if unit == "fraction" else f"{value:{sign}#.4g}".removesuffix(".")
