"""What predictions are worth: compared, at a threshold, for whom, and what is behind them."""

__all__: list[str] = []
