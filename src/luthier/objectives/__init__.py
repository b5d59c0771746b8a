"""Losses: pure functions of tensors that return a sum and what to divide it by."""
