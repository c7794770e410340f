"""Tests of the report's forms, pictures and chapters."""
