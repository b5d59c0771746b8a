"""Prepared rows in, tensors in a reproducible order out: padded, or packed end to end."""
