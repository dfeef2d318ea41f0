"""Names and messages for people to read."""

from __future__ import annotations

import re

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def visible(text: str) -> str:
    r"""Text in one line, whose control characters are shown as in Python (``\x1b``) and do nothing.

    File names may have any: written to a terminal they could move the cursor, or hide other lines.

    Example:
        >>> visible("a\x1b[2J.png")
        'a\\x1b[2J.png'
    """
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
