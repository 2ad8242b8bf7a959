"""Draw the images that ``tests/pl/test_images.py`` compares with anew; look at every one before committing it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

if __name__ == "__main__":
    command = [sys.executable, "-m", "pytest", "-q", "tests/pl/test_images.py", "-k", "test_image"]
    sys.exit(subprocess.call(command, cwd=ROOT, env={**os.environ, "UPDATE_IMAGES": "1"}))
