"""The command line: a thin skin over `ecgstore.Store`."""
