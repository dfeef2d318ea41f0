"""``python -m reid_models``: the command line ``reid``."""

import sys

from .cli import main

sys.exit(main())
