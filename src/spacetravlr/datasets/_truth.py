"""The true regulation of a simulated tissue: which modulators act, how strongly, and what expression follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from spacetravlr import _keys
from spacetravlr._anndata._modulators import INTERCEPT, build_design, terms_table
from spacetravlr._core.design import term_values
from spacetravlr.datasets import _symbols
from spacetravlr.datasets._fields import FIELDS, FieldBasis, draw_fields
from spacetravlr.datasets._tissue import SimulatedCells, received

if TYPE_CHECKING:
    from spacetravlr._anndata._modulators import Design
    from spacetravlr._types import Floats, Ints

_STRENGTH = {"tf": 1.0, "lr": 0.9, "tfl": 0.7}
_MEAN_EXPRESSION = 1.5


class Panel(NamedTuple):
    """The genes of a simulated tissue and their prior tables."""

    tfs: list[str]
    targets: list[str]
    relays: list[str]
    grn: pd.DataFrame
    ligand_receptor: pd.DataFrame
    ligand_tf: pd.DataFrame
    var: pd.DataFrame


def make_panel(params: dict[str, Any], rng: np.random.Generator) -> Panel:
    """Choose genes and draw the prior tables, which contain true and false regulators."""
    tfs = _symbols.take_names(_symbols.TFS, params["n_tfs"], "TF")
    n_contact = params["n_contact_pairs"]
    secreted = _symbols.take_pairs(_symbols.SECRETED_PAIRS, params["n_pairs"] - n_contact)
    contact = _symbols.take_pairs(_symbols.CONTACT_PAIRS, n_contact)
    pairs = pd.DataFrame([*secreted, *contact], columns=["ligand", "receptor", "pathway"])
    pairs.insert(2, "range", [_keys.SECRETED] * len(secreted) + [_keys.CONTACT] * len(contact))
    ligands, receptors = (list(dict.fromkeys(pairs[c])) for c in ("ligand", "receptor"))
    if params["n_relays"] > len(ligands):
        msg = f"Expected `n_relays` to be at most the number of ligands ({len(ligands)}), found `{params['n_relays']}`."
        raise ValueError(msg)
    relays = ligands[len(ligands) - params["n_relays"] :]
    plain = _symbols.take_names(_symbols.TARGETS, params["n_targets"] - len(relays), "GENE")
    targets = [*plain, *relays]

    grn = pd.DataFrame({"tf": np.tile(tfs, len(targets)), "target": np.repeat(targets, len(tfs))})
    grn["weight"] = rng.uniform(0.2, 1.0, size=len(grn)).round(3)
    roles = {
        "tf": tfs,
        "ligand": ligands,
        "receptor": receptors,
        "target": plain,
        "housekeeping": list(_symbols.HOUSEKEEPING[:6]),
        "bystander": [f"BYSTANDER{i + 1}" for i in range(params["n_bystanders"])],
    }
    var = pd.DataFrame(
        {"role": pd.Categorical([role for role, genes in roles.items() for _ in genes], categories=list(roles))},
        index=pd.Index([gene for genes in roles.values() for gene in genes]),
    )
    return Panel(tfs, targets, relays, grn, pairs, _ligand_tf_table(tfs, pairs, params["n_ligand_tf"], rng), var)


def _ligand_tf_table(tfs: list[str], pairs: pd.DataFrame, n: int, rng: np.random.Generator) -> pd.DataFrame:
    """``n`` distinct ligand-TF pairs, spread over the transcription factors; FOXO1 is one of them where n allows."""
    ligands = list(dict.fromkeys(pairs["ligand"])) if n else []
    order = [tfs[0], *rng.permutation(tfs[1:])]
    rows = []
    for i in range(n):
        turn, position = divmod(i, len(order))
        rows.append((ligands[(position + turn) % len(ligands)], order[position]))
    table = pd.DataFrame(rows, columns=["ligand", "tf"], dtype=object)
    return table.assign(score=rng.uniform(0.05, 0.4, size=n).round(4))


def draw_design(panel: Panel, params: dict[str, Any], rng: np.random.Generator) -> tuple[Design, pd.DataFrame]:
    """Draw which modulators act on each target.

    Returns
    -------
    The design, and the table of its columns with two more: ``active`` and ``field``.
    """
    ranges = panel.ligand_receptor.drop_duplicates(["ligand"]).set_index("ligand")["range"]
    base = pd.concat(
        [
            pd.DataFrame({"kind": "tf", "tf": panel.tfs}),
            panel.ligand_receptor[["ligand", "receptor", "range"]].assign(kind="lr"),
            panel.ligand_tf[["ligand", "tf"]].assign(kind="tfl", range=panel.ligand_tf["ligand"].map(ranges)),
        ]
    ).fillna("")
    kind = base["kind"].to_numpy()
    touches_relay = base["ligand"].isin(panel.relays).to_numpy()
    n_active = {
        "tf": params["n_active_tfs"],
        "lr": params["n_active_pairs"],
        "tfl": params["n_active_ligand_tf"],
    }
    tables = []
    for target in panel.targets:
        relay = target in panel.relays
        active = np.zeros(len(base), dtype=bool)
        for k, n in n_active.items():
            if relay and k != "tf":
                continue
            candidates = np.flatnonzero(kind == k)
            if k == "tf" and n:
                # the first factor acts on the first target and on relays: the worked example of the documentation
                first = target == panel.targets[0] or relay
                chosen = rng.choice(candidates[first:], size=n - first, replace=False)
                active[candidates[:first]] = True
            else:
                chosen = rng.choice(candidates, size=n, replace=False)
            active[chosen] = True
        keep = ~(touches_relay & (base["ligand"] == target).to_numpy())
        tables.append(base[keep].assign(target=target, active=active[keep]))
    table = pd.concat(tables, ignore_index=True)
    design = build_design(table, panel.var.index, panel.targets)
    terms = terms_table(design)
    active = np.ones(len(terms), dtype=bool)
    active[(terms["kind"] != INTERCEPT).to_numpy()] = table["active"].to_numpy()
    kinds = np.array(FIELDS if params["fields"] == "mixed" else (params["fields"],), dtype=object)
    turn = np.repeat(np.arange(len(panel.targets)), np.diff(design.targets.indptr) + 1)
    field = pd.Categorical(kinds[turn % len(kinds)], categories=list(FIELDS))
    return design, terms.assign(active=active, field=field)


def regressors(
    expression: Floats, design: Design, tissue: SimulatedCells, radius: float, contact_radius: float
) -> Floats:
    """Value of every distinct term at every cell."""
    signals = np.empty((len(expression), len(design.signals)))
    for contact, r in ((False, radius), (True, contact_radius)):
        columns = np.flatnonzero(design.signals.contact == contact)
        ligands = expression[:, design.signals.ligand[columns]]
        signals[:, columns] = received(tissue.coordinates, ligands, radius=r, slide=tissue.slide)
    return term_values(expression, signals, design.terms)


def draw_coefficients(rows: pd.DataFrame, basis: FieldBasis, scale: Floats, rng: np.random.Generator) -> Floats:
    """Draw one target's active coefficients: cells x active rows of its terms, the intercept first.

    Parameters
    ----------
    rows
        Rows of the terms table.
    basis
        What fields are made of.
    scale
        Spread of each active regressor within cell types; its coefficient is a field in units of that.
    rng
        Generator of this target.
    """
    fields = draw_fields(basis, str(rows["field"].iloc[0]), int(rows["active"].sum()), rng)
    strength = np.array([_STRENGTH[k] for k in rows.loc[rows["active"], "kind"].iloc[1:]])
    # the intercept varies little within a type: what a type-wise mean explains is not what regulators explain
    fields *= np.append(0.3, strength / np.where(scale > 0, scale, 1.0))
    types = rng.normal(0, 1.0, size=int(basis.cell_type.max()) + 1)
    fields[:, 0] += types[basis.cell_type]
    return fields


def target_expression(
    coefficients: Floats,
    values: Floats,
    cell_type: Ints,
    r2: float,
    rng: np.random.Generator,
    hidden: tuple[Floats, float] | None = None,
) -> tuple[Floats, Floats]:
    """Compute a target's expression before and after noise.

    Shifts the intercept and scales all ``coefficients``, in place, so that expression is positive and of order one.
    Noise explains ``1 - r2`` of the variance within cell types. The shift leaves room for it, so that hardly any value
    is clipped at zero. A ``hidden`` cause (values of variance one, share) explains that share of the remaining
    variance, or all of it if there is no regulator.
    """
    signal = coefficients[:, 0] + (coefficients[:, 1:] * values).sum(axis=1)
    spread = float(within_sd(signal[:, None], cell_type)[0])
    if hidden is not None:
        cause, share = hidden
        regulated = values.shape[1] > 0
        size = spread * np.sqrt(share / (1 - share)) if regulated else max(spread, 0.3)
        signal = signal + size * cause
        spread = float(within_sd(signal[:, None], cell_type)[0])
    noise = rng.normal(0, 1, size=len(signal)) * np.sqrt((1 - r2) / r2) * (spread if spread > 0 else 0.2)
    shift = -signal.min() + 3 * noise.std()
    factor = _MEAN_EXPRESSION / max(float(signal.mean() + shift), 1e-6)
    coefficients[:, 0] += shift
    coefficients *= factor
    noise_free = (signal + shift) * factor
    return noise_free, np.maximum(noise_free + noise * factor, 0.0)


def within_sd(values: Floats, cell_type: Ints) -> Floats:
    """Compute the standard deviation of each column within cell types, pooled."""
    counts = np.maximum(np.bincount(cell_type), 1)
    onehot = np.eye(len(counts))[cell_type]
    mean = (onehot.T @ values) / counts[:, None]
    return np.sqrt(((values - mean[cell_type]) ** 2).mean(axis=0))
