"""Answers of the model's own, drawn while it trains, and what they are worth."""
