"""A room for each paper: its network, what only it needs, and its recipes; :mod:`.._registry` finds them."""
