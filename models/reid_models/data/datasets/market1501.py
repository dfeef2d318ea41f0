"""Market-1501: 751 persons for training, 750 for test, six cameras."""

from __future__ import annotations

import os
import re

from ..records import ReidDataset, SplitCounts
from .market_layout import read_market_like

NAME = re.compile(r"(?P<identity>-1|\d{4})_c(?P<camera>\d)s\d_.*")
COUNTS = SplitCounts(751, 12936, 750, 3368, 19732)  # HSGNet, section IV-A
LAYOUT = """\
  ROOT (or ROOT/Market-1501-v15.09.15)/
    bounding_box_train/  0002_c1s1_000451_03.jpg ...
    query/               0001_c1s1_001051_00.jpg ...
    bounding_box_test/   0001_c1s1_001051_03.jpg, 0000_c1s1_... (distractors), -1_c1s1_... (junk) ..."""


def read_market1501(root: str | os.PathLike[str]) -> ReidDataset:
    """Reads Market-1501 (HSGNet, section IV-A).

    Protocol: gallery images of a query's identity from its own camera are junk, and so is identity -1;
    identity 0 are distractors, which are wrong for every query. Both stay in the gallery's 19,732 images.

    Args:
        root: the dataset's folder, or the one that it lies in as ``Market-1501-v15.09.15``.

    Raises:
        FileNotFoundError: the folder has another layout; the message shows the one looked for.
        ValueError: an image is misnamed or empty, or a split is.

    Example:
        >>> dataset = read_market1501("/data/Market-1501-v15.09.15")
        >>> verify_split(dataset)
        []
    """
    return read_market_like(
        root,
        "market1501",
        pattern=NAME,
        form="IDENTITY_cCAMERAsSEQUENCE_..., as in 0002_c1s1_000451_03.jpg",
        layout=LAYOUT,
        nested="Market-1501-v15.09.15",
        published=COUNTS,
    )
