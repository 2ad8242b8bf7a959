"""Run the session of the README with the package as it is installed, outside the checkout.

``path/to/environment/bin/python .ci/smoke.py``: what a newcomer does first, on fewer cells.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Run it in an empty folder; an error is the exit status."""
    session = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert session is not None
    source = session[1].replace("n_cells=4000", "n_cells=1500").replace("n_samples=50", "n_samples=10")
    os.environ.setdefault("MPLBACKEND", "Agg")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        names: dict[str, object] = {}
        exec(compile(source, "README.md", "exec"), names)
        os.chdir(ROOT)
    package = sys.modules["spacetravlr"]
    if ROOT in Path(str(package.__file__)).parents:
        msg = f"Expected an installed package, found the checkout's: {package.__file__}"
        raise SystemExit(msg)
    print(f"spacetravlr {package.__version__} from {package.__file__}: {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
