"""What a model knows and says: loss over a validation set, answers to prompts."""
