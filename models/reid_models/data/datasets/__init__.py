"""Readers: one file for each dataset, with its protocol."""
