"""Whether tests of signals hold where no signal acts, and find those that do.

``python -m benchmarks.signals --results docs/_tables/signals.csv --out docs/_tables/signals.md``, and
``--figure docs/_static/signals_null.png``

Simulated tissues of 12 targets with counts at depth 1 (or 7; *exact*: before counting), programs 0.5, each target with
12 candidate signals. :func:`spacetravlr.tl.test_signals` with ``counts_layer``.

Nulls: nothing regulates, and each target follows a cause that is no signal of the tables (*ligand*: a signal of a gene
outside the panel). *shuffled*: regulated targets, permuted within types. *TFs only*: eight TFs act with coefficients
that vary over the tissue, no signal does. *spillover*: 15 % of the molecules of a cell are counted in cells that touch
it; nothing regulates, or TFs only.

**p < 0.05**, **p < 0.01**: share of the tests of signals that do not act. **KS**: largest distance of their p-values
from uniform ones, over 20 bins. **called**: share of the tests with q < 0.1. **power**: share of the acting signals
that are called; **FDR**: share of the called ones that do not act, over all tissues of a setting.

``--real``: real sections instead, see ``benchmarks.signals_real``.

Results are added to the file ``--results`` as they come; what it holds is not run again.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData

import spacetravlr as st
from benchmarks import _common as common
from benchmarks import signals_real
from benchmarks._sections import SECTIONS
from benchmarks._truth import NULL, prepare, shuffle_targets, simulate
from benchmarks.truth import FIRST_SEED, Results
from spacetravlr import _keys

N_BINS = 20
FDR = 0.1
SPILLOVER = 0.15
NO_SIGNALS = {"n_active_pairs": 0, "n_active_ligand_tf": 0}
NULLS: dict[str, dict[str, Any]] = {
    "no cause": NULL,
    **{kind: {"confounder": kind, **NULL} for kind in ("smooth", "domains", "tf", "ligand", "receptor", "own_ligand")},
    "shuffled": {},
    "TFs only": NO_SIGNALS,
    "spillover": {"spillover": SPILLOVER, **NULL},
    "spillover, TFs only": {"spillover": SPILLOVER, **NO_SIGNALS},
}
MIXTURES: dict[str, dict[str, Any]] = {"signals act": {}, "signals act, spillover": {"spillover": SPILLOVER}}
_METHOD = "test"


class Setting(NamedTuple):
    """Tissues of one kind."""

    n_cells: int
    kind: str
    depth: float = 1.0
    exact: bool = False
    seeds: int = 3

    def __str__(self) -> str:
        """As the table names it."""
        depth = ", exact" if self.exact else "" if self.depth == 1.0 else f", depth {self.depth:g}"
        return f"{self.n_cells:,} cells, {self.kind}{depth}"


SETTINGS = [
    *(Setting(1_200, kind, seeds=4) for kind in NULLS),
    *(Setting(6_000, kind, seeds=1) for kind in NULLS),
    Setting(1_200, "signals act", seeds=4),
    Setting(6_000, "signals act", seeds=2),
    Setting(10_000, "signals act", seeds=3),
    Setting(10_000, "signals act", depth=7.0, seeds=2),
    Setting(10_000, "signals act", exact=True, seeds=2),
    Setting(10_000, "signals act, spillover", seeds=1),
]


def tissue(setting: Setting, seed: int, n_targets: int) -> AnnData:
    """Simulate and prepare a tissue."""
    options = {**NULLS, **MIXTURES}[setting.kind]
    adata = simulate(setting.n_cells, setting.depth, 0.5, seed, n_targets, keep_truth=False, **options)
    if setting.kind == "shuffled":
        shuffle_targets(adata, seed)
    return prepare(adata, "exact" if setting.exact else "log1p")


def acting(adata: AnnData, kind: str) -> set[tuple[str, str]]:
    """Targets and the signals that act on them."""
    if kind in NULLS:
        return set()
    terms = adata.uns["simulation"]["terms"]
    terms = terms[terms["active"] & terms["kind"].isin(["lr", "tfl"])].astype(str)
    return {(row.target, _keys.signal_name(row.ligand, row.range)) for row in terms.itertuples()}


def measure(setting: Setting, seed: int, n_targets: int) -> dict[str, float]:
    """Test one tissue, and hold it against the truth."""
    adata = tissue(setting, seed, n_targets)
    start = time.perf_counter()
    st.tl.test_signals(adata, counts_layer=None if setting.exact else "counts", show_progress_bar=False)
    seconds = time.perf_counter() - start
    table = st.get.signals(adata)
    true = acting(adata, setting.kind)
    acts = np.array([pair in true for pair in zip(table["target"], table["signal"], strict=True)])
    p, called = table["p"].to_numpy(float), table["q"].to_numpy(float) < FDR
    bins = np.histogram(p[~acts], bins=N_BINS, range=(0, 1))[0]
    return {
        "tests": len(p), "nothing": int((~acts).sum()), "below_05": int((p[~acts] < 0.05).sum()),
        "below_01": int((p[~acts] < 0.01).sum()), "called": int(called.sum()), "true": int((called & acts).sum()),
        "targets_05": float((st.get.signals(adata, per="target")["p"] < 0.05).mean()),
        "gain_acting": float(table["gain"][acts].mean()) if acts.any() else np.nan,
        "gain_nothing": float(table["gain"][~acts].mean()),
        "inflation": float(st.get.signals(adata, per="target")["inflation"].mean()), "seconds": seconds,
        **{f"bin_{i:02d}": int(n) for i, n in enumerate(bins)},
    }  # fmt: skip


def table(results: pd.DataFrame, settings: list[str]) -> str:
    """One row per setting, over its tissues."""
    rows = []
    for setting in settings:
        group = results[results["setting"] == setting]
        total = group.sum(numeric_only=True)
        bins = total[[f"bin_{i:02d}" for i in range(N_BINS)]].to_numpy(float)
        distance = np.abs(np.cumsum(bins) / bins.sum() - np.arange(1, N_BINS + 1) / N_BINS).max()
        acts = total["tests"] - total["nothing"]
        wrong = total["called"] - total["true"]
        rows.append(
            {
                "setting": setting,
                "tissues": len(group),
                "p < 0.05": f"{total['below_05'] / total['nothing']:.3f}",
                "p < 0.01": f"{total['below_01'] / total['nothing']:.3f}",
                "KS": f"{distance:.3f}",
                "called": f"{total['called'] / total['tests']:.3f}",
                "power": f"{total['true'] / acts:.2f}" if acts else "-",
                "FDR": f"{wrong / total['called']:.2f}" if acts and total["called"] else "-",
                "gain of acting": f"{group['gain_acting'].mean():.5f}" if acts else "-",
                "s": f"{group['seconds'].median():.0f}",
            }
        )
    return common.markdown(pd.DataFrame(rows))


def plot(results: pd.DataFrame, path: Path) -> None:
    """Draw histograms of the p-values of signals that do not act, one panel per null."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    kinds = [kind for kind in NULLS if results["setting"].str.endswith(f"cells, {kind}").any()]
    figure, axes = plt.subplots(
        2, -(-len(kinds) // 2), figsize=(11, 4.4), sharex=True, sharey=True, layout="constrained", squeeze=False
    )
    for ax in axes.ravel()[len(kinds) :]:
        ax.remove()
    columns = [f"bin_{i:02d}" for i in range(N_BINS)]
    for ax, kind in zip(axes.ravel(), kinds, strict=False):
        for i, n in enumerate((1_200, 6_000)):
            bins = results.loc[results["setting"] == f"{n:,} cells, {kind}", columns].sum().to_numpy(float)
            if bins.sum():
                ax.stairs(
                    bins / bins.sum() * N_BINS, np.linspace(0, 1, N_BINS + 1), color=f"C{i}", label=f"{n:,} cells"
                )
        ax.axhline(1, color="0.5", lw=0.8, ls=":")
        ax.set_title(kind, fontsize=10)
        ax.set_xticks([0, 0.5, 1])
    axes[0, 0].set_ylim(0, None)
    figure.supxlabel("p-value of a signal that does not act", fontsize=10)
    figure.supylabel("density", fontsize=10)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower right", ncols=2, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(argv: list[str] | None = None) -> None:
    """Run what was asked for, print as it goes, and write table and figure at the end."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.signals", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", nargs="+", metavar="TEXT", help="those with one of these texts in their name")
    parser.add_argument("--seeds", type=int, metavar="N", help="tissues of each setting")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether all of it runs, not what comes out")
    parser.add_argument("--real", action="store_true", help="real sections instead of simulated tissues")
    parser.add_argument("--sections", nargs="+", default=list(SECTIONS), choices=list(SECTIONS))
    parser.add_argument("--n-jobs", type=int, help="of --real")
    parser.add_argument("--results", type=Path, help="CSV of every tissue")
    parser.add_argument("--out", type=Path, help="markdown table")
    parser.add_argument("--figure", type=Path, help="PNG of p-values of the nulls")
    args = parser.parse_args(argv)
    st.settings.show_progress_bar = False
    logging.getLogger("spacetravlr").setLevel(logging.ERROR)
    if args.real:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            common.write(common.markdown(signals_real.rows(args.sections, 0, args.n_jobs)), args.out)
        return
    results = Results(args.results)
    settings = [Setting(300, "no cause", seeds=1), Setting(300, "signals act", seeds=1)] if args.quick else SETTINGS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for setting in settings:
            if args.settings is not None and not any(text in str(setting) for text in args.settings):
                continue
            for seed in range(args.first_seed, args.first_seed + (args.seeds or setting.seeds)):
                if (str(setting), seed, _METHOD) not in results:
                    results.add(str(setting), seed, _METHOD, measure(setting, seed, 2 if args.quick else 12))
    frame = results.frame()
    order = [str(s) for s in settings]
    found = sorted(set(frame["setting"]), key=lambda s: order.index(s) if s in order else len(order))
    common.write(table(frame, found), args.out)
    if args.figure is not None:
        plot(frame, args.figure)


if __name__ == "__main__":
    main()
