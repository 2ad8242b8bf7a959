"""What each way of fitting counts gets right of a known regulation.

``python -m benchmarks.truth --results docs/_tables/truth.csv --out docs/_tables/truth.md``, and
``--figure docs/_static/truth.png``

``python -m benchmarks.truth --baselines --results docs/_tables/baselines.csv --out docs/_tables/baselines.md``

``python -m benchmarks.truth --nulls --results docs/_tables/truth_nulls.csv --out docs/_tables/truth_nulls.md``

Simulated tissues of 12 targets, of which counts are drawn at three depths: a measured regulator correlates with its
true expression at about 0.4, 0.73 and 0.95 within cell types at depths 0.17, 1 and 7. Part of the variation of
regulators from cell to cell follows common programs. Seeds start at 100: no default was chosen on these tissues.

Ways of fitting: *this package* with ``counts_layer``; *without noise model*, its surfaces (``body="surface"``) on
log-normalised values; *imputed*, the seed (``body="seed"``) on imputed values, the regression of the published way;
*pooled least squares*, one coefficient per regulator and an intercept per type; *ridge per type* and *GWR*, see
:mod:`benchmarks.baselines`; *true coefficients*, at measured values; *oracle*, surfaces on the values before counting.

* **R2**: held out, against measured values. The oracle predicts expression, not counts: its R2 may be negative.
* **fields**: correlation of coefficients with the true ones within cell types, over active terms.
* **TPR, FPR**: truly active and truly zero terms called active, without the terms of adjustment. Pooled least squares
  calls what has p < 0.01; ridge and GWR have the published rule (importance above 5 % of the median active one).
* **effects**: correlation of knockout effects (one round, each gene, cell and target) with the true ones, which follow
  from true coefficients and exact values. Estimates are at the values that were fitted. **TFs, receptors, ligands**:
  the same for genes of that role. **slope**: of estimates on truth; **calibration**: of truth on estimates, one for a
  posterior mean.
* **matched**: correlation of a knockout's profile (mean effect on each target) with its own true one, less that with
  those of other genes.

``--nulls``: tissues where nothing regulates, with several causes of targets that are no regulators, and tissues whose
target counts are shuffled within types; **spurious** is the size (rms) of knockout effects over that of true ones in a
tissue with regulation of the same size, and **R2** what the fit reports: against the values that it was fitted to.

``--inference``: whether errors and false discovery rates hold, in tissues with regulation and without. Intervals are of
90 %, of mean coefficients and mean changes by cell type; discoveries are at a rate of 0.1. **FDR** and **power** of
active regulators, of coefficients that vary and of effects of knockouts (a discovery of the wrong sign is false; power
over effects above a tenth of the target's standard deviation). **cover**: share of the intervals that hold the truth,
**acting** of those regulators that do act. **width**: of intervals, over the error of estimates. **p < 0.05**: of
regulators that do not act. **measured**: coverage of effects that start from measured values. **first**: knockouts
whose predicted profile is most like their own true one, among 40, and the same for pooled least squares.

``--baselines``: knockouts that start from measured, denoised (:func:`spacetravlr.pp.denoise`) and imputed values.
**effects** and **calibration** as above, of a fit to counts, at these values; **true coefficients**: effects with
them; **falls**, **rises**: mean effects by cell type with true coefficients, within the range of the values (nothing
falls below zero), as slope on the true ones, apart for changes of either sign.

Results are added to the file ``--results`` as they come; what it holds is not run again.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

import spacetravlr as st
from benchmarks import _common as common
from benchmarks._inference import BINS, LEVELS, measure
from benchmarks._truth import DEPTHS, NULL, WAYS, Case, rms, shuffle_targets, simulate

FIRST_SEED = 100
MEASURES = {
    "R2": "r2", "fields": "fields", "TPR": "tpr", "FPR": "fpr", "effects": "effects", "slope": "slope",
    "calibration": "calibration", "TFs": "tf", "receptors": "receptor", "ligands": "ligand", "matched": "matched",
    "s / target": "seconds",
}  # fmt: skip
NULL_MEASURES = {
    "keep a model": "kept",
    "active": "called",
    "active pairs": "pairs",
    "spurious": "spurious",
    "R2": "r2",
}
INFERENCE_MEASURES = {
    "FDR": "fdp", "power TFs": "power_tf", "power signals": "power_signal", "called": "n_active", "p < 0.05": "p05",
    "FDR varying": "fdp_varies", "power varying": "power_varies",
    "cover": "cover", "acting": "cover_acting", "width": "width_error",
    "cover effects": "cover_effects", "cover moving": "cover_moving",
    "effects, measured": "cover_effects_measured", "moving, measured": "cover_moving_measured",
    "FDR effects": "fdp_effects", "power effects": "power_effects", "effects called": "n_effects",
    "first": "first", "first, least squares": "first_rival",
}  # fmt: skip
BASELINE_MEASURES = {
    "effects": "effects", "calibration": "calibration", "true coefficients": "effects_true", "falls": "falls",
    "rises": "rises",
}  # fmt: skip
BASELINES = {"measured": "log1p", "denoised": "denoised", "imputed": "imputed"}
NULL_METHODS = ("this package", "without noise model", "imputed")
CONFOUNDERS: tuple[str | None, ...] = (None, "smooth", "domains", "tf", "ligand", "receptor", "own_ligand", "shuffled")
_KEYS = ["setting", "seed", "method"]


class Setting(NamedTuple):
    """One size of tissue, measured to one depth."""

    n_cells: int
    depth: float
    programs: float

    def __str__(self) -> str:
        """As the tables name it."""
        return f"{self.n_cells:,} cells, depth {self.depth:g}, programs {self.programs:g}"


SETTINGS = [
    *(Setting(1_200, depth, 0.5) for depth in DEPTHS),
    Setting(1_200, 1.0, 0.0),
    Setting(1_200, 1.0, 0.85),
    *(Setting(10_000, depth, 0.5) for depth in DEPTHS),
    Setting(50_000, 1.0, 0.5),
]
NULL_SIZES = (1_200, 6_000)
QUICK = 200  # cells
_MANY_CELLS = 10_000  # one seed from here on


class Results:
    """Rows of results, kept in a file as they come."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        there = path is not None and path.exists()
        self.rows: list[dict[str, Any]] = pd.read_csv(path).to_dict("records") if there and path else []

    def __contains__(self, key: tuple[str, int, str]) -> bool:
        """Whether there is a row of this setting, seed and method."""
        return any(tuple(row[k] for k in _KEYS) == key for row in self.rows)

    def add(self, setting: str, seed: int, method: str, row: dict[str, float]) -> None:
        """Print a row, and write it to the file."""
        self.rows.append({"setting": setting, "seed": seed, "method": method, **row})
        print(f"{setting}  seed {seed}  {method:20s} " + "  ".join(f"{k} {v:.3f}" for k, v in row.items()), flush=True)
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self.frame().to_csv(self._path, index=False, float_format="%.5g")

    def frame(self) -> pd.DataFrame:
        """All rows."""
        return pd.DataFrame(self.rows)


def run(settings: Iterable[Setting], methods: list[str], n_seeds: int | None, n_targets: int, results: Results) -> None:
    """Fit tissues with regulation in all ways."""
    for setting in settings:
        seeds = n_seeds or (2 if setting.n_cells < _MANY_CELLS else 1)
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            todo = [m for m in methods if setting.n_cells <= WAYS[m].most_cells]
            todo = [m for m in todo if (str(setting), seed, m) not in results]
            if todo:
                case = Case(simulate(*setting, seed, n_targets))
                for method in todo:
                    way = WAYS[method]
                    results.add(str(setting), seed, method, case.measure(way.fit(case), way.start))


def run_nulls(sizes: Iterable[int], methods: list[str], n_seeds: int | None, n_targets: int, results: Results) -> None:
    """Fit tissues without regulation."""
    for n_cells in sizes:
        for seed in range(FIRST_SEED, FIRST_SEED + (n_seeds or 1)):
            names = {c: f"{n_cells:,} cells, {'no cause' if c is None else c}" for c in CONFOUNDERS}
            if all((name, seed, m) in results for name in names.values() for m in methods):
                continue
            normal = simulate(n_cells, 1.0, 0.5, seed, n_targets)
            true_rms = rms(Case(normal).effects)
            for confounder, name in names.items():
                todo = [m for m in methods if (name, seed, m) not in results]
                if not todo:
                    continue
                if confounder == "shuffled":
                    tissue = normal
                    shuffle_targets(tissue, seed)
                else:
                    tissue = simulate(n_cells, 1.0, 0.5, seed, n_targets, confounder=confounder, **NULL)
                case = Case(tissue)
                for method in todo:
                    way = WAYS[method]
                    results.add(name, seed, method, case.measure_null(way.fit(case), way.start, true_rms))


def run_inference(
    settings: Iterable[Setting], sizes: Iterable[int], n_seeds: int | None, n_targets: int, results: Results
) -> None:
    """Judge fits of tissues with regulation, then of those without."""
    method = "this package"
    for setting in settings:
        for seed in range(FIRST_SEED, FIRST_SEED + (n_seeds or (2 if setting.n_cells < _MANY_CELLS else 1))):
            if (str(setting), seed, method) not in results:
                results.add(str(setting), seed, method, measure(Case(simulate(*setting, seed, n_targets)), null=False))
    for n_cells in sizes:
        for confounder in CONFOUNDERS[:-1]:
            name = f"{n_cells:,} cells, {confounder or 'no cause'}"
            for seed in range(FIRST_SEED, FIRST_SEED + (n_seeds or 1)):
                if (name, seed, method) not in results:
                    tissue = simulate(n_cells, 1.0, 0.5, seed, n_targets, confounder=confounder, **NULL)
                    results.add(name, seed, method, measure(Case(tissue), null=True))


def run_baselines(settings: Iterable[Setting], n_seeds: int | None, n_targets: int, results: Results) -> None:
    """Knock genes out from several baselines."""
    for setting in settings:
        for seed in range(FIRST_SEED, FIRST_SEED + (n_seeds or (2 if setting.n_cells < _MANY_CELLS else 1))):
            todo = [name for name in BASELINES if (str(setting), seed, name) not in results]
            if todo:
                case = Case(simulate(*setting, seed, n_targets))
                fitted = WAYS["this package"].fit(case)
                for name in todo:
                    case.prepared(BASELINES[name])
                    results.add(str(setting), seed, name, case.measure_baseline(fitted, BASELINES[name]))


def plot_inference(results: pd.DataFrame, path: Path) -> None:
    """Draw p-values of regulators that do not act, and coverage at every level."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    regulated = results["setting"].str.contains("depth")
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    heights = {"nothing regulates": ~regulated, "beside others that act": regulated}
    for i, (label, rows) in enumerate(heights.items()):
        counts = results.loc[rows, [f"h{b}" for b in range(BINS)]].sum().to_numpy()
        if counts.sum():
            edges = np.linspace(0, 1, BINS + 1)
            axes[0].stairs(counts / counts.sum() * BINS, edges, color=f"C{i}", label=label, lw=1.5)
    axes[0].axhline(1, color="0.6", lw=0.8)
    axes[0].set(xlabel="p-value", ylabel="density", title="regulators that do not act", xlim=(0, 1), ylim=(0, None))
    axes[0].legend(frameon=False)
    for i, (setting, group) in enumerate(results[regulated].groupby("setting", sort=False)):
        found = [group[f"cover{int(100 * level)}"].mean() for level in LEVELS]
        axes[1].plot(LEVELS, found, color=f"C{i}", marker="o", ms=4, label=str(setting))
    axes[1].plot([0.5, 1], [0.5, 1], color="0.6", lw=0.8)
    axes[1].set(
        xlabel="stated coverage", ylabel="share of intervals that hold the truth", title="coefficients by cell type"
    )
    axes[1].legend(frameon=False, fontsize=7, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def table(results: pd.DataFrame, settings: list[str], methods: list[str], measures: dict[str, str]) -> str:
    """Mean and spread over seeds, one row per setting and method; a dash where nothing was run."""
    rows = []
    for setting in settings:
        for method in methods:
            group = results[(results["setting"] == setting) & (results["method"] == method)]
            cells = {name: common.mean_spread(group[key].tolist()) for name, key in measures.items()}
            rows.append({"setting": setting, "method": method, **cells})
    return common.markdown(pd.DataFrame(rows))


def plot(results: pd.DataFrame, path: Path) -> None:
    """Draw power over cells and depth: correlation of knockout effects, and terms found at the achieved FPR."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullLocator, StrMethodFormatter

    mean = results.drop(columns="seed").groupby(["setting", "method"]).mean()
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    lines = {"this package": "-", "pooled least squares": "--"}
    for method, line in lines.items():
        for i, depth in enumerate(DEPTHS):
            found = [s for s in SETTINGS if (s.depth, s.programs) == (depth, 0.5) and (str(s), method) in mean.index]
            look = {"color": f"C{i}", "marker": "o", "mfc": f"C{i}" if line == "-" else "white"}
            for ax, key in zip(axes, ("effects", "tpr"), strict=True):
                heights = [mean.loc[(str(s), method), key] for s in found]
                ax.plot([s.n_cells for s in found], heights, line, label=f"{method}, depth {depth:g}", **look)
            for s in found:
                tpr, fpr = mean.loc[(str(s), method), ["tpr", "fpr"]]
                best = max(mean.loc[(str(s), m), "tpr"] for m in lines if (str(s), m) in mean.index)
                axes[1].annotate(
                    f"{fpr:.2f}", (s.n_cells, tpr), xytext=(0, 5 if tpr == best else -12),
                    textcoords="offset points", ha="center", fontsize=7, color=f"C{i}",
                )  # fmt: skip
    axes[0].set(ylabel="correlation with the true effects", title="knockout effects")
    axes[1].set(ylabel="TPR", title="active terms that are found; numbers: FPR")
    for ax in axes:
        ax.set(xscale="log", xlabel="cells", ylim=(-0.1, 1.08), xlim=(900, 70_000))
        ax.set_xticks(sorted({s.n_cells for s in SETTINGS}))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.truth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", nargs="+", metavar="TEXT", help="those with one of these texts in their name")
    parser.add_argument("--methods", nargs="+", choices=list(WAYS))
    parser.add_argument(
        "--seeds", type=int, metavar="N", help="by default 2 below 10,000 cells (nulls: 1), otherwise 1"
    )
    parser.add_argument("--nulls", action="store_true", help="tissues where nothing regulates")
    parser.add_argument("--inference", action="store_true", help="errors and false discovery rates")
    parser.add_argument("--baselines", action="store_true", help="what knockouts start from")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether all of it runs, not what comes out")
    parser.add_argument("--results", type=Path, help="CSV of every single result")
    parser.add_argument("--out", type=Path, help="markdown table")
    parser.add_argument("--figure", type=Path, help="PNG of power")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run what was asked for, print as it goes, and write table and figure at the end."""
    args = _parser().parse_args(argv)
    st.settings.show_progress_bar = False
    logging.getLogger("spacetravlr").setLevel(logging.ERROR)
    n_targets = 3 if args.quick else 12
    results = Results(args.results)
    methods = args.methods or list(NULL_METHODS if args.nulls else WAYS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # small tissues: neighbours and types with few cells
        if not args.quick:  # what is compiled first does not count
            run([Setting(QUICK, 1.0, 0.5)], methods, 1, 2, Results(None))
        if args.nulls or args.inference:
            sizes = [QUICK] if args.quick else NULL_SIZES
            sizes = [n for n in sizes if args.settings is None or any(text in f"{n:,} cells" for text in args.settings)]
        if args.nulls:
            run_nulls(sizes, methods, args.seeds, n_targets, results)
        else:
            settings = [Setting(QUICK, 1.0, 0.5)] if args.quick else SETTINGS
            chosen = [s for s in settings if args.settings is None or any(text in str(s) for text in args.settings)]
            if args.inference:
                run_inference(chosen, sizes, args.seeds, n_targets, results)
            elif args.baselines:
                run_baselines(chosen, args.seeds, n_targets, results)
            else:
                run(chosen, methods, args.seeds, n_targets, results)
    frame = results.frame()
    known = NULL_METHODS if args.nulls else BASELINES if args.baselines else WAYS
    shown = [m for m in known if m in set(frame["method"])]
    found = list(dict.fromkeys(frame["setting"]))
    order = [*map(str, SETTINGS), *(f"{n:,} cells, {c or 'no cause'}" for n in NULL_SIZES for c in CONFOUNDERS)]
    found.sort(key=lambda s: order.index(s) if s in order else len(order))
    measures = MEASURES
    if args.nulls:
        measures = NULL_MEASURES
    elif args.inference:
        measures = INFERENCE_MEASURES
    elif args.baselines:
        measures = BASELINE_MEASURES
    common.write(table(frame, found, shown, measures), args.out)
    if args.figure is not None:
        (plot_inference if args.inference else plot)(frame, args.figure)


if __name__ == "__main__":
    main()
