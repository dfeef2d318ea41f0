"""Hybrid attention with multiple-resolution features."""
