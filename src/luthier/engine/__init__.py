"""The training loop and what it steps with: optimiser, schedule, precision."""
