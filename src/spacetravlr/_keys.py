"""Every key the package reads or writes in an AnnData, in one place (see ``docs/architecture.md``)."""

from __future__ import annotations

# what the user brings
SPATIAL = "spatial"
CELL_TYPE = "cell_type"

# what ``pp`` writes
IMPUTED = "imputed"
DENOISED = "denoised"
SPATIAL_WEIGHTS = "spatial_weights"
CONTACT_WEIGHTS = "contact_weights"
RECEIVED = "received_ligands"
NICHE = "niche_composition"
MODULATORS = "modulators"

# what ``tl`` writes
BETAS = "betas"
PERTURBED = "perturbed"
REPLICATE = "replicate"
NULL_FITS = "null_fits"
MICRONICHE = "microniche"
DRIVERS = "drivers"
SIGNALS_TEST = "signals_test"
SIMULATION = "simulation"
TRUE_BETAS = "true_betas"

#: Suffix of the signal column of a contact ligand; secreted signals carry the bare gene name.
CONTACT_SUFFIX = "|contact"
SECRETED = "secreted"
CONTACT = "contact"


def contact_weights(key_added: str) -> str:
    """Key of the contact weights that belong to the secreted weights ``key_added``."""
    return CONTACT_WEIGHTS if key_added == SPATIAL_WEIGHTS else f"{key_added}_contact"


def received_tfl(key_added: str) -> str:
    """Key of the received ligands of the ligand-TF terms that belong to ``key_added``."""
    return f"{key_added}_tfl"


def received_params(key_added: str) -> str:
    """Key of the parameters that belong to the received ligands ``key_added``."""
    return f"{key_added}_params"


def transitions(key_added: str) -> str:
    """``obsp`` key of the transition probabilities of a perturbation."""
    return f"{key_added}_transitions"


def perturbed_se(key_added: str) -> str:
    """Layer of the standard errors of a perturbation."""
    return f"{key_added}_se"


def microniches(key_added: str) -> str:
    """``uns`` key of the information about the niches in ``obs[key_added]``."""
    return f"{key_added}s"


def vectors(key_added: str, basis: str) -> str:
    """``obsm`` key of the arrows of a perturbation on an embedding."""
    return f"{key_added}_{basis}"


def driver_knockouts(key_added: str) -> str:
    """``obsm`` key of the effect of losing each gene in each cell on a read-out."""
    return f"{key_added}_knockout"


def signal_name(ligand: str, signal_range: str) -> str:
    """Column name of a received ligand: the gene, with a suffix for contact signals."""
    return ligand + CONTACT_SUFFIX if signal_range == CONTACT else ligand


def parse_signal(name: str) -> tuple[str, str]:
    """Ligand gene and range (``"secreted"`` or ``"contact"``) of a received-ligand column."""
    if name.endswith(CONTACT_SUFFIX):
        return name.removesuffix(CONTACT_SUFFIX), CONTACT
    return name, SECRETED
