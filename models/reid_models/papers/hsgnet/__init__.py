"""HSGNet: hierarchical similarity graph network."""
