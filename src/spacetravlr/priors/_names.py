"""Detect problems from the names in a prior table: another species, a transposed table, regulons instead of TFs."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable

import numpy as np
import pandas as pd

logger = logging.getLogger(__name__)

#: Families that most transcription factors belong to, by the beginning of their symbols.
_FAMILIES = re.compile(
    r"(AHR|ARNT|ASCL\d|ATF\d|BACH\d|BATF|BCL6|BCL11|BHLHE|CDX\d|CEBP|CLOCK$|CREB|CTCF|DDIT3|DLX\d|E2F\d|EBF\d|EGR\d|ELF\d|"
    r"ELK\d|EOMES|ERG$|ESR\d|ETS\d|ETV\d|FLI1|FOS|FOX[A-Z]\d|GATA\d|GLI\d|HES\d|HEY\d|HIF\d|HNF\d|HOX[A-D]\d|ID\d$|IKZF\d|"
    r"IRF\d|JUN|KLF\d|LEF\d|LHX\d|LYL1|MAF|MAX$|MEF2|MITF|MSX\d|MYB|MYC|NEUROD|NFAT|NFE2|NFI[ABCX]$|NFKB|NFY[ABC]|NKX\d|"
    r"NR\d[A-Z]\d|NRF1|OLIG\d|ONECUT|PAX\d|POU\d|PPAR[ADG]$|PRDM\d|RAR[ABG]$|REL[AB]?$|REST$|RFX\d|RUNX\d|RXR[ABG]$|SIX\d|"
    r"SMAD\d|SNAI\d|SOX\d|SP\d$|SPI\d|SRF$|SRY$|STAT\d|TAL1|TBP$|TBX|TCF\d|TEAD\d|TFAP|TP[567]3|TWIST|USF\d|XBP1|YY1|ZBTB|"
    r"ZEB\d|ZFP\d|ZNF\d)",
    flags=re.IGNORECASE,
)
#: Endings of the regulons of SCENIC and pySCENIC: "FOXO1(+)", "FOXO1_(-)", "FOXO1_extended (34g)".
_REGULON = re.compile(r"(_extended)?[\s_]*(\((\+|-|\d+g)\))?$")
_SUBUNITS = re.compile(r"::|_")


def look_like_factors(names: Iterable[str]) -> float:
    """Return the share of names that belong to a family of transcription factors."""
    found = [bool(_FAMILIES.match(str(name))) for name in names]
    return float(np.mean(found)) if found else 0.0


def are_swapped(factors: Collection[str], others: Collection[str]) -> bool:
    """Whether the names on the other axis clearly look more like transcription factors than those on this one."""
    if min(len(factors), len(others)) < 3:
        return False
    here, there = look_like_factors(factors), look_like_factors(others)
    return there > 0.3 and here < 0.5 * there


def assert_same_species(names: Iterable[str], genes: pd.Index, *, name: str) -> None:
    """Raise ``ValueError`` if more names of a table match the panel only when case is ignored than match exactly."""
    distinct = pd.Index(list(dict.fromkeys(map(str, names))))
    same = distinct.isin(genes)
    lower = {str(gene).lower(): str(gene) for gene in genes}
    other_case = [gene for gene in distinct[~same] if gene.lower() in lower]
    if len(other_case) <= same.sum():
        return
    gene = other_case[0]
    msg = (
        f"Expected `{name}` to hold names of adata.var_names, found {int(same.sum())} of its {len(distinct)} genes, "
        f"while {len(other_case)} differ only in case ({gene!r} and {lower[gene.lower()]!r}): the table is of another "
        f"species. Call `st.priors.map_orthologs({name}, st.priors.fetch_orthologs())` first."
    )
    raise ValueError(msg)


def mend_factors(grn: pd.DataFrame, genes: pd.Index) -> pd.DataFrame:
    """Base network whose regulons ("FOXO1(+)") and complexes ("FOS_JUN", "FOS::JUN") are the factors of the panel.

    A complex becomes one edge for each of its subunits in the panel. Names that are genes of the panel stay.
    """
    distinct = grn["tf"].astype(str).unique()
    mended = {name: _factors(name, genes) for name in distinct if name not in genes}
    mended = {name: found for name, found in mended.items() if found}
    if not mended:
        return grn
    example = next(iter(mended))
    logger.warning(
        "Reading %d regulons or complexes of `grn` as their transcription factors (such as %r as %s).",
        len(mended), example, ", ".join(mended[example]),
    )  # fmt: skip
    tf = grn["tf"].astype(str)
    table = grn.assign(tf=[mended.get(name, [name]) for name in tf], target=grn["target"].astype(str)).explode("tf")
    return table.drop_duplicates(["tf", "target"], ignore_index=True).astype({"tf": "category", "target": "category"})


def _factors(name: str, genes: pd.Index) -> list[str]:
    plain = _REGULON.sub("", name.removeprefix("COMPLEX:").strip())
    if plain in genes:
        return [plain]
    subunits = dict.fromkeys(_REGULON.sub("", subunit) for subunit in _SUBUNITS.split(plain))
    return [subunit for subunit in subunits if subunit in genes]


def orient_ligand_tf(
    scores: pd.DataFrame, ligands: Collection[str], factors: Collection[str] | None = None
) -> pd.DataFrame:
    """Ligand-TF scores the right way round, judged by the ligands of pairs and the factors of a base network."""

    def matched(ligand: str, tf: str) -> int:
        n_ligands = int(scores[ligand].cat.categories.isin(ligands).sum())
        return n_ligands if factors is None else min(n_ligands, int(scores[tf].cat.categories.isin(factors).sum()))

    if matched("tf", "ligand") <= 3 * matched("ligand", "tf"):
        return scores
    logger.warning("`ligand_tf` has ligands where its transcription factors should be: reading it transposed.")
    return scores.rename(columns={"ligand": "tf", "tf": "ligand"})[["ligand", "tf", "score"]]
