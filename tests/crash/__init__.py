"""Crash tests: writers are killed, disks fail and power is lost at every step of a command."""
