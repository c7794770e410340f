"""An embedded feature store for electrocardiograms."""
