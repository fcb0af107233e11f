"""Group the characters that look alike: `python -m infra.lookalikes FONT`, with pillow and a font of simplified Han.

Characters of GB 2312 are drawn, blurred and correlated; those of a group are alike in all pairs. Writes
services/profiles/domain/lookalikes.txt; the one in use was drawn with Noto Sans CJK.
"""

import sys
import textwrap
from pathlib import Path

import numpy as np

from services.profiles.domain import similarity

ALIKE = 0.86  # least correlation: 未末, 王玉, 志忐 and 洁浩 are above, 佳桂 and 田由 below
_SIZE, _MARGIN, _BLUR = 40, 8, 1.2  # pixels


def drawn(chars: list[str], font: str) -> np.ndarray:
    """Return a row of unit length for each character: its blurred picture without its mean."""
    from PIL import Image, ImageDraw, ImageFilter, ImageFont

    face, side = ImageFont.truetype(font, _SIZE), _SIZE + _MARGIN
    rows = np.zeros((len(chars), side * side), np.float32)
    for row, char in zip(rows, chars, strict=True):
        picture = Image.new("L", (side, side), 0)
        ImageDraw.Draw(picture).text((4, -6), char, font=face, fill=255)
        row[:] = np.asarray(picture.filter(ImageFilter.GaussianBlur(_BLUR)), np.float32).ravel()
    rows -= rows.mean(1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def grouped(chars: list[str], rows: np.ndarray) -> list[str]:
    """Return the groups of two and more by complete linkage, the most alike first."""
    likeness = rows @ rows.T
    pairs = np.argwhere(np.triu(likeness, 1) > ALIKE)
    home, members = list(range(len(chars))), {at: [at] for at in range(len(chars))}
    for one, other in pairs[np.argsort(-likeness[pairs[:, 0], pairs[:, 1]])]:
        left, right = home[one], home[other]
        if left != right and (likeness[np.ix_(members[left], members[right])] > ALIKE).all():
            members[left] += members.pop(right)
            for at in members[left]:
                home[at] = left
    return ["".join(chars[at] for at in sorted(group)) for group in members.values() if len(group) > 1]


def main() -> None:
    """Write the groups."""
    both = (bytes((high, low)) for high in range(0xB0, 0xF8) for low in range(0xA1, 0xFF))
    chars = list("".join(pair.decode("gb2312", "ignore") for pair in both))
    text = " ".join(grouped(chars, drawn(chars, sys.argv[1])))
    lines = textwrap.wrap(text, 60)
    Path(similarity.__file__).with_name("lookalikes.txt").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
