"""Conversations in, token ids with a supervised mask out."""
