"""The run folder: trained models, logs, what is read back from them."""
