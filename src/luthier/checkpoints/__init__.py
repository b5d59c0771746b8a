"""Sealed folders from which a run goes on: write, verify, load, retain."""
