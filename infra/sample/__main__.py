"""`python -m infra.sample FOLDER [YYYY-MM-DD]`: write the sample in a process of its own, whose memory ends with it."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

from infra.sample.generate import REFERENCE_DATE, SEED, generate

if __name__ == "__main__":
    generate(Path(sys.argv[1]), SEED, date.fromisoformat(sys.argv[2]) if len(sys.argv) > 2 else REFERENCE_DATE)
