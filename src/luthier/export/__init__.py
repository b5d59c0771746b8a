"""A trained model as other programs take it, each artifact run and measured against the model."""
