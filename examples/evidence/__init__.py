"""Small-scale evidence for the papers' claims, on the built-in real images: one file a paper.

A file ``NAME.py`` has ``run(folder, console)``, which trains from scratch in the folder and gives what it
measured; ``python -m examples.evidence NAME`` writes that to ``benchmarks/results/evidence/NAME.json``.
"""
