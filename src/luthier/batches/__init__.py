"""Prepared rows in, padded tensors in a reproducible order out."""
