"""HENet: hierarchical and efficient learning with global, partial and recovery branches."""
