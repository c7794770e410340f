"""The public datasets: what each brings besides signals."""
