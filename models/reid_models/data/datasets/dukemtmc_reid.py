"""DukeMTMC-reID: 702 persons for training, 702 for test, eight cameras."""

from __future__ import annotations

import os
import re

from ..records import ReidDataset, SplitCounts
from .market_layout import read_market_like

NAME = re.compile(r"(?P<identity>\d{4,})_c(?P<camera>\d)_f\d+.*")
COUNTS = SplitCounts(702, 16522, 702, 2228, 17661)  # hybrid attention, section IV-B
LAYOUT = """\
  ROOT (or ROOT/DukeMTMC-reID)/
    bounding_box_train/  0001_c2_f0046182.jpg ...
    query/               0005_c2_f0046985.jpg ...
    bounding_box_test/   0002_c1_f0044158.jpg ... (with 408 persons whom no query asks for)"""


def read_dukemtmc_reid(root: str | os.PathLike[str]) -> ReidDataset:
    """Reads DukeMTMC-reID (hybrid attention, section IV-B).

    Protocol: as Market-1501's, gallery images of a query's identity from its own camera are junk. The gallery
    shows 408 persons more than queries ask for: distractors with identities of their own.

    Args:
        root: the dataset's folder, or the one that it lies in as ``DukeMTMC-reID``.

    Raises:
        FileNotFoundError: the folder has another layout; the message shows the one looked for.
        ValueError: an image is misnamed or empty, or a split is.

    Example:
        >>> dataset = read_dukemtmc_reid("/data/DukeMTMC-reID")
        >>> verify_split(dataset)
        []
    """
    return read_market_like(
        root,
        "dukemtmc_reid",
        pattern=NAME,
        form="IDENTITY_cCAMERA_fFRAME, as in 0001_c2_f0046182.jpg",
        layout=LAYOUT,
        nested="DukeMTMC-reID",
        published=COUNTS,
    )
