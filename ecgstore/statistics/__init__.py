"""Statistics of predictions: metrics, intervals, tests, calibration, decisions. Pure arrays."""

__all__: list[str] = []
