"""Random Polygon Erasing (HENet) and random erasing of rectangles.

:mod:`.rule` is what kernels and reference are told, :mod:`.erase` the functions, :mod:`.transforms` the
modules. These stand on :mod:`reid_ops.reference`, which stands on the rule, so they are not imported here.
"""

from .erase import occlude, polygon_erase, random_erase

__all__ = ["occlude", "polygon_erase", "random_erase"]
