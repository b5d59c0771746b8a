"""How good answers are: each metric a pure function of answers and references."""
