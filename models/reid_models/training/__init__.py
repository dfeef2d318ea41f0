"""Training: configuration, module, data, schedule, checkpoints."""
