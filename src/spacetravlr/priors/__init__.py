"""Prior knowledge as long tables: base regulatory networks, ligand-receptor pairs, ligand-TF potentials."""

from spacetravlr.priors._activity import ligand_activity
from spacetravlr.priors._base_grn import read_base_grn
from spacetravlr.priors._fetch import fetch_base_grn, fetch_ligand_receptor, fetch_ligand_tf, fetch_orthologs
from spacetravlr.priors._ligand_receptor import read_ligand_receptor
from spacetravlr.priors._ligand_tf import read_ligand_tf
from spacetravlr.priors._orthologs import map_orthologs

__all__ = [
    "fetch_base_grn",
    "fetch_ligand_receptor",
    "fetch_ligand_tf",
    "fetch_orthologs",
    "ligand_activity",
    "map_orthologs",
    "read_base_grn",
    "read_ligand_receptor",
    "read_ligand_tf",
]
