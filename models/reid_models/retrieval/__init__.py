"""Retrieval: features, their files, evaluation and galleries."""
