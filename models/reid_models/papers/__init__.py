"""One room for each paper: its network, its recipes, its figures."""
