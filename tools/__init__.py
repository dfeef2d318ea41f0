"""Build and check scripts: run from the repository root, not installed."""
