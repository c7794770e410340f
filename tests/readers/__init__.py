"""What every reader must do, on real files and on thousands of damaged ones."""
