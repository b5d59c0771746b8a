"""Faults injected for real into real runs: what `tests/faults` and `tools/fault_table.py` share."""
