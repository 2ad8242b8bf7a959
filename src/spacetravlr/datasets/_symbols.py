"""Real human gene symbols for simulated tissues, so that they read like a real panel and match prior tables."""

from __future__ import annotations

from itertools import islice


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _rows(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(line.split()) for line in text.strip().splitlines())


CELL_TYPES = (
    "B cell", "T cell", "Macrophage", "Fibroblast", "Endothelial", "Epithelial", "Plasma cell", "NK cell",
    "Dendritic cell", "Mast cell", "Neutrophil", "Pericyte", "Smooth muscle", "Myofibroblast", "Monocyte",
    "Schwann cell",
)  # fmt: skip

TFS = _words("""
    FOXO1 STAT3 IRF4 NFKB1 MYC BCL6 TCF7 GATA3 RUNX3 SPI1 EBF1 JUN FOS KLF2 TBX21 EOMES TOX FOXP3 RORC BATF IRF8
    CEBPB CEBPA MAFB ETS1 LEF1 ID2 ID3 ZEB1 ZEB2 SNAI1 SNAI2 TWIST1 SOX4 SOX9 SOX10 SOX17 SOX18 ERG FLI1 TAL1
    GATA1 GATA2 GATA6 HIF1A EPAS1 NFE2L2 TP53 TP63 E2F1 E2F3 MYBL2 RELA RELB REL STAT1 STAT4 STAT5A STAT6 IRF1
    IRF2 IRF3 IRF5 IRF7 SMAD2 SMAD3 SMAD4 TEAD1 TEAD4 KLF4 KLF5 KLF6 EGR1 EGR2 EGR3 ATF3 ATF4 CREB1 NR4A1 NR4A2
    NR3C1 PPARG RXRA RARA ESR1 AR FOXA1 FOXA2 FOXM1 FOXP1 ELF3 ELF1 EHF GRHL2 HNF1B HNF4A MEF2C MEIS1 TCF21 PRRX1
""")

#: The first is the example target of the documentation.
TARGETS = _words("""
    PAX5 CD79A MS4A1 CD19 CD3E CD2 IL7R GZMB PRF1 NKG7 LYZ CD68 CD14 C1QA C1QB APOE COL1A1 COL3A1 DCN LUM FAP
    ACTA2 TAGLN PECAM1 VWF CLDN5 KRT8 KRT18 EPCAM MUC1 MKI67 TOP2A PCNA CCND1 CCNB1 BCL2 MCL1 BAX CASP3 VIM FN1
    SPARC TIMP1 MMP9 MMP2 S100A8 S100A9 HLA-DRA HLA-DPA1 CD74 CIITA XBP1 JCHAIN MZB1 SDC1 TNFRSF17 AICDA LTB TRAC
    GNLY KLRD1 IFNG GZMK LAG3 TIGIT HAVCR2 MRC1 CD163 MARCO FCGR3A ITGAM SELL SELP ICAM2 ENG KDR PDPN THY1 S100A4
    LGALS3 SPP1 IDO1 ISG15 MX1 OAS1 IFIT1 HSPA1A DUSP1 ZFP36 IER2 NEAT1 MALAT1 SOD2 TXNIP GLUL LDHA ENO1 PGK1
    VEGFB
""")

HOUSEKEEPING = ("ACTB", "GAPDH", "B2M", "RPLP0", "TUBB", "PPIA", "EEF1A1", "RPL13A", "UBC", "HPRT1", "TBP", "YWHAZ")

#: ligand, receptor, pathway. CX3CL1 acts both as a shed chemokine and on the membrane.
SECRETED_PAIRS = _rows("""
    CXCL12 CXCR4 CXCL
    CCL19 CCR7 CCL
    CX3CL1 CX3CR1 CX3C
    CXCL13 CXCR5 CXCL
    TGFB1 TGFBR2 TGFb
    IL6 IL6R IL6
    VEGFA FLT1 VEGF
    PDGFB PDGFRB PDGF
    CCL5 CCR5 CCL
    IL10 IL10RA IL10
    TNF TNFRSF1A TNF
    CSF1 CSF1R CSF
    IL1B IL1R1 IL1
    HGF MET HGF
    EGF EGFR EGF
    FGF2 FGFR1 FGF
    WNT5A FZD5 ncWNT
    CXCL9 CXCR3 CXCL
    CCL2 CCR2 CCL
    IL15 IL2RB IL2
    GAS6 AXL GAS
    ANGPT1 TEK ANGPT
    KITLG KIT KIT
    TNFSF13B TNFRSF13B BAFF
    BMP4 BMPR2 BMP
    IGF1 IGF1R IGF
    MIF CD44 MIF
    CXCL16 CXCR6 CXCL
    CCL20 CCR6 CCL
    OSM OSMR OSM
""")
CONTACT_PAIRS = _rows("""
    DLL1 NOTCH1 NOTCH
    CD80 CD28 CD80
    CX3CL1 ITGB3 CX3C
    JAG1 NOTCH2 NOTCH
    CD274 PDCD1 PD-L1
    ICAM1 ITGAL ICAM
    CD40LG CD40 CD40
    EFNB1 EPHB2 EPHB
    EFNA1 EPHA2 EPHA
    CD86 CTLA4 CD86
    NECTIN2 CD226 NECTIN
    VCAM1 ITGA4 VCAM
    SEMA4D PLXNB1 SEMA4
    ALCAM CD6 ALCAM
""")


def take_names(pool: tuple[str, ...], n: int, prefix: str) -> list[str]:
    """First ``n`` names of ``pool``, continued as ``<prefix>0001`` when the pool is too small."""
    return [*pool[:n], *(f"{prefix}{i:04d}" for i in range(1, n - len(pool) + 1))]


def take_pairs(pool: tuple[tuple[str, ...], ...], n: int) -> list[tuple[str, str, str]]:
    """First ``n`` pairs of ``pool``, continued with other combinations of its ligands and receptors.

    The combinations use every receptor and every ligand about equally often. Received ligands are smooth, so pairs that
    share a receptor are nearly collinear, and no method could distinguish them in a panel with few receptors.
    """
    known = {(ligand, receptor) for ligand, receptor, _ in pool}
    ligands, receptors = (list(dict.fromkeys(row[i] for row in pool)) for i in (0, 1))
    more = (
        (ligands[(i + shift) % len(ligands)], receptor, "combined")
        for shift in range(len(ligands))
        for i, receptor in enumerate(receptors)
        if (ligands[(i + shift) % len(ligands)], receptor) not in known
    )
    pairs = [tuple(row) for row in pool[:n]]
    pairs.extend(islice(more, max(0, n - len(pool))))
    if len(pairs) < n:
        msg = f"Expected at most {len(pairs)} ligand-receptor pairs of one range, found `{n}`."
        raise ValueError(msg)
    return pairs  # type: ignore[return-value]
