"""What all benchmarks share: the data model, timing, machine, floors, checks, reports."""
