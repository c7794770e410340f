"""Care for a warehouse: what verifies, repairs, compacts, collects litter and erases patients."""

__all__: list[str] = []
