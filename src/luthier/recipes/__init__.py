"""RunConfig, and the wiring of one job from its settings."""
