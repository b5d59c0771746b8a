"""Errors, hashing, whole-file writes, seeds and units. Imports no torch."""
