"""Splits: drawing them, storing them, and proving that nothing crosses."""

__all__: list[str] = []
