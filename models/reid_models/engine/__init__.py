"""Training, features and evaluation."""
