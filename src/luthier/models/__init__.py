"""A model folder in, a model ready for training out: loading, attention, adapters."""
