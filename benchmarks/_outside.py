"""Truth from outside: what was measured after perturbing cells, and how well predicted effects agree with it."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import rankdata

LIGANDS, FACTORS = "cytosig_51_ligands.tsv.gz", "tf_perturbation_sets_human.gmt.gz"
#: Genes of the cytokines that CytoSig calls otherwise; those of several genes (interferons, IL12) are left out.
GENE_OF = {
    "Activin A": "INHBA", "CD40L": "CD40LG", "GCSF": "CSF3", "GMCSF": "CSF2", "IL36": "IL36G", "MCSF": "CSF1",
    "TNFA": "TNF", "TRAIL": "TNFSF10", "TWEAK": "TNFSF12",
}  # fmt: skip
_GAIN = {"OE", "ACTIVATION", "INDUCTION", "HYPERACTIVE"}
_LOSS = {"KD", "KO", "SIRNA", "SHRNA", "DEPLETION", "INACTIVATION", "DEFICIENCY", "INHIBITION", "SILENCING"}
_RESAMPLES = 2000


class Truth(NamedTuple):
    """What was measured."""

    ligands: pd.DataFrame
    """Genes x ligands: log fold change after treatment."""
    factors: dict[str, pd.Series]
    """Per transcription factor the genes that changed: 1 where it raises them, -1 where it lowers, 0 where in doubt."""


class Estimate(NamedTuple):
    """Mean and 95 % interval of the bootstrap."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]" if np.isfinite(self.mean) else "-"


def read_truth(folder: Path) -> Truth:
    """Read both files of a folder."""
    ligands = pd.read_csv(folder / LIGANDS, sep="\t", index_col=0).rename(columns=GENE_OF)
    votes: dict[str, dict[str, int]] = {}
    with gzip.open(folder / FACTORS, "rt") as lines:
        for line in lines:
            name, _, *genes = line.rstrip("\n").split("\t")
            factor, how, *_, direction = name.split()
            if how not in _GAIN | _LOSS:
                continue  # mutants and fusions: neither more nor less of the factor
            sign = (1 if how in _GAIN else -1) * (1 if direction == "UP" else -1)
            found = votes.setdefault(factor, {})
            for gene in filter(None, genes):
                found[gene] = found.get(gene, 0) + sign
    return Truth(ligands, {factor: np.sign(pd.Series(found)) for factor, found in votes.items()})


def bootstrap(values: Sequence[np.ndarray], statistic: Callable[..., float], *, seed: int) -> Estimate:
    """``statistic`` of the values, one entry for each unit, with an interval over the units."""
    n = len(values[0])
    whole = float(statistic(*values)) if n else np.nan
    if not np.isfinite(whole):
        return Estimate(*[np.nan] * 3)
    draws = np.random.default_rng(seed).integers(n, size=(_RESAMPLES, n))
    spread = [statistic(*(v[draw] for v in values)) for draw in draws]
    return Estimate(whole, *np.quantile(np.array(spread)[np.isfinite(spread)], [0.025, 0.975]))


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a positive scores higher than a negative, ties counting half."""
    n = positive.sum()
    rest = len(positive) - n
    return float((rankdata(scores)[positive].sum() - n * (n + 1) / 2) / (n * rest)) if n and rest else np.nan


def compare_factors(effects: pd.DataFrame, factors: Mapping[str, pd.Series], *, seed: int) -> dict[str, object]:
    """Hold effects of factors (factors x targets, raised is positive) against what changed after perturbing them.

    ``auc`` says whether effects on the genes that changed are larger than on others, mean over factors; ``others`` the
    same with the genes that changed after perturbing each of the other factors: some genes change whatever is
    perturbed, and some have large effects whatever the factor. ``sign`` is the share of the effects on genes that
    changed, zeros left out, that have the right sign; ``by chance`` what it is for signs drawn as often.
    """
    names = [str(factor) for factor in effects.index]
    areas, right, known, up = [], [], [], np.zeros(2, dtype=int)
    for name, (_, row) in zip(names, effects.iterrows(), strict=True):
        row = row.drop(name, errors="ignore")
        sizes = row.abs().to_numpy()
        areas.append([auc(sizes, row.index.isin(factors[other].index)) for other in names])
        truth = factors[name].reindex(row.index).fillna(0)
        signed = (truth != 0) & (row != 0)
        right.append(int((np.sign(row[signed]) == truth[signed]).sum()))
        known.append(int(signed.sum()))
        up += [int((row[signed] > 0).sum()), int((truth[signed] > 0).sum())]
    square = np.array(areas)
    own = np.diag(square).copy()
    np.fill_diagonal(square, np.nan)
    others = np.nanmean(square, axis=1)
    p, q = up / max(sum(known), 1)
    return {
        "auc": bootstrap([own], np.nanmean, seed=seed),
        "others": bootstrap([others], np.nanmean, seed=seed),
        "difference": bootstrap([own - others], np.nanmean, seed=seed),
        "sign": bootstrap([np.array(right), np.array(known)], _share, seed=seed),
        "by chance": p * q + (1 - p) * (1 - q) if sum(known) else np.nan,
        "pairs": sum(known),
        "factors": len(names),
    }


def _share(right: np.ndarray, known: np.ndarray) -> float:
    return float(right.sum() / known.sum()) if known.sum() else np.nan


def compare_ligands(effects: pd.DataFrame, measured: pd.DataFrame, *, seed: int) -> dict[str, object]:
    """Hold effects of ligands (ligands x targets) against all measured profiles (targets x ligands).

    ``rank`` is the share of the other profiles that agree less than the right one: 1 where the right one is first, 0.5
    by chance. A ligand without any effect agrees with none: correlations of 0, rank 0.5.
    """
    matched, others, rank = [], [], []
    for ligand, row in effects.iterrows():
        row = row.drop(ligand, errors="ignore")
        r = _correlations(row.to_numpy(float), measured.loc[row.index].to_numpy(float))
        own = int(measured.columns.get_loc(ligand))
        rest = np.delete(r, own)
        matched.append(r[own])
        others.append(rest.mean())
        rank.append((rest < r[own]).mean() + (rest == r[own]).mean() / 2)
    both = [np.asarray(matched), np.asarray(others)]
    return {
        "matched": bootstrap(both[:1], np.mean, seed=seed),
        "mismatched": bootstrap(both[1:], np.mean, seed=seed),
        "difference": bootstrap(both, lambda a, b: (a - b).mean(), seed=seed),
        "rank": bootstrap([np.asarray(rank)], np.mean, seed=seed),
        "ligands": len(matched),
        "with effects": int((effects != 0).any(axis=1).sum()),
    }


def _correlations(row: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Correlation of one profile with each column; 0 where either does not vary."""
    row, columns = row - row.mean(), columns - columns.mean(axis=0)
    norms = np.linalg.norm(row) * np.linalg.norm(columns, axis=0)
    return np.where(norms > 1e-12, row @ columns / np.maximum(norms, 1e-12), 0.0)
