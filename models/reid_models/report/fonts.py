"""Fonts for names in scripts that matplotlib's own font does not have."""

from __future__ import annotations

import functools

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text

# What Linux, macOS and Windows have for Chinese, Japanese and Korean, those with most characters first.
FALLBACKS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Source Han Sans SC",
    "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "PingFang SC", "Hiragino Sans GB",
    "Hiragino Sans", "Apple SD Gothic Neo", "Microsoft YaHei", "SimHei", "Yu Gothic", "Malgun Gothic",
    "Arial Unicode MS",
)  # fmt: skip


def complete_fonts(figure: Figure) -> None:
    """Gives texts with characters that their font lacks the fonts of this machine that may have them.

    Texts that lack nothing stay as they are, so that their figures are the same on every machine.
    """
    fallbacks = [name for name in FALLBACKS if name in _installed()]
    for text in figure.findobj(Text):
        family = text.get_fontfamily()
        if fallbacks and fallbacks[0] not in family and _lacks(text.get_text(), text.get_fontproperties()):
            text.set_fontfamily([*family, *fallbacks])


@functools.cache
def _installed() -> frozenset[str]:
    return frozenset(fontManager.get_font_names())


def _lacks(text: str, font: FontProperties) -> bool:
    known = get_font(findfont(font))
    return any(not known.get_char_index(ord(character)) for character in set(text) if character.isprintable())
