"""Public tables: local folder, cache, download from a server on this machine, and what is said when there is none."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest

import spacetravlr as st
from spacetravlr._download import fetch_file
from spacetravlr.priors import _fetch


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SPACETRAVLR_DATA", raising=False)
    monkeypatch.setattr(st.settings, "cache_dir", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}", folder
        http.shutdown()
        thread.join()


def test_known_hash_is_checked(server: tuple[str, Path], cache: Path) -> None:
    address, folder = server
    (folder / "t.csv").write_text("a,b\n1,2\n")
    digest = hashlib.sha256(b"a,b\n1,2\n").hexdigest()
    path = fetch_file("t.csv", url=f"{address}/t.csv", known_hash=digest)
    assert path == cache / "t.csv"
    assert path.read_text() == "a,b\n1,2\n"
    assert [p.name for p in cache.iterdir()] == ["t.csv"]

    with pytest.raises(ValueError, match="to have the hash 0123, found"):
        fetch_file("other.csv", url=f"{address}/t.csv", known_hash="0123")
    assert not (cache / "other.csv").exists()


def test_first_download_is_trusted_and_watched(
    server: tuple[str, Path], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address, folder = server
    (folder / "t.csv").write_text("first")
    with caplog.at_level("WARNING", logger="spacetravlr"):
        path = fetch_file("t.csv", url=f"{address}/t.csv")
    assert "No checksum is known" in caplog.text
    (folder / "t.csv").write_text("changed at the source")
    assert fetch_file("t.csv", url=f"{address}/t.csv").read_text() == "first"
    path.write_text("changed on disk")
    with pytest.raises(ValueError, match="delete it to download it again"):
        fetch_file("t.csv", url=f"{address}/t.csv")


def test_offline_says_where_to_put_the_file(server: tuple[str, Path], cache: Path) -> None:
    with pytest.raises(ConnectionError, match=r"(?s)Could not download .*missing.csv.*SPACETRAVLR_DATA.*Do this\."):
        fetch_file("t.csv", url=f"{server[0]}/missing.csv", hint="Do this.")
    assert not (cache / "t.csv").exists()
    with pytest.raises(FileNotFoundError, match="in the local data folder or the cache, found in neither"):
        fetch_file("t.csv")


@pytest.mark.parametrize("body", ["", "<!DOCTYPE html><p>busy", "Something is not entirely good: overloaded"])
def test_an_error_page_is_not_kept(
    server: tuple[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    address, folder = server
    (folder / "table").write_text(body)
    monkeypatch.setattr(_fetch, "_OMNIPATH", f"{address}/table?o={{taxon}}&d={{dataset}}&l={{license}}")
    for fetch in (partial(st.priors.fetch_base_grn, organism="mouse", resource="collectri"), st.priors.fetch_base_grn):
        with pytest.raises(ConnectionError, match=r"Expected http.*/table.*found .*it was not kept.*SPACETRAVLR_DATA"):
            fetch()
    assert not list(cache.iterdir())
    (folder / "table").write_text("source_genesymbol\ttarget_genesymbol\nA\tB\n")
    assert len(st.priors.fetch_base_grn(organism="mouse", resource="collectri")) == 1


def test_licences_are_asked_for_and_kept_apart(
    server: tuple[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    for name, n in (("academic", 3), ("commercial", 1)):
        rows = "".join(f"A\tB{i}\n" for i in range(n))
        (folder / name).write_text("source_genesymbol\ttarget_genesymbol\n" + rows)
    monkeypatch.setattr(_fetch, "_OMNIPATH", f"{address}/{{license}}?o={{taxon}}&d={{dataset}}")
    for name, n in (("academic", 3), ("commercial", 1), ("academic", 3)):
        assert len(st.priors.fetch_base_grn(organism="mouse", resource="collectri", license=name)) == n  # type: ignore[arg-type]
    assert len(st.priors.fetch_base_grn(resource="collectri", license="commercial")) == 1
    with pytest.raises(ValueError, match="`license` to be one of 'academic', 'commercial'"):
        st.priors.fetch_base_grn(license="mine")  # type: ignore[arg-type]


def test_local_folder_comes_first(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir()
    (cache / "t.csv").write_text("cached")
    assert fetch_file("t.csv").read_text() == "cached"
    (tmp_path / "mine.csv").write_text("local")
    monkeypatch.setenv("SPACETRAVLR_DATA", str(tmp_path))
    assert fetch_file("t.csv", local="mine.csv").read_text() == "local"
    assert fetch_file("t.csv").read_text() == "cached"


def test_downloaded_layouts_are_read(
    server: tuple[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch, edges: pd.DataFrame
) -> None:
    address, folder = server
    omnipath = edges.rename(
        columns={"tf": "source_genesymbol", "target": "target_genesymbol", "confidence": "dorothea_level"}
    )
    omnipath.query("dorothea_level != 'E'").replace({"dorothea_level": {"B": "D"}}).assign(
        source="P1", target="P2"
    ).to_csv(folder / "omnipath", sep="\t", index=False)
    monkeypatch.setattr(_fetch, "_OMNIPATH", f"{address}/omnipath?organisms={{taxon}}&datasets={{dataset}}")
    assert len(st.priors.fetch_base_grn(confidence="AD")) == 3
    assert len(st.priors.fetch_base_grn(confidence="A")) == 2
    assert len(st.priors.fetch_base_grn(organism="mouse", resource="collectri")) == 3

    edges.rename(columns={"tf": "source", "mor": "weight"}).to_csv(folder / "collectri.csv", index=False)
    monkeypatch.setattr(_fetch, "_COLLECTRI", f"{address}/collectri.csv")
    assert set(st.priors.fetch_base_grn(resource="collectri")["weight"]) == {1.0, -1.0}

    pd.DataFrame(
        {
            "source_genesymbol": ["TGFB1", "Tgfb1", "TGFB2"],
            "target_genesymbol": ["TGFBR1_TGFBR2", "Tgfbr1", "TGFBR1"],
            "resource": ["consensus", "mouseconsensus", "cellchatdb"],
            "range": "secreted",
        }
    ).to_csv(folder / "liana.csv")  # fmt: skip
    monkeypatch.setattr(_fetch, "_LIANA", f"{address}/liana.csv")
    assert list(st.priors.fetch_ligand_receptor()["ligand"]) == ["TGFB2"]
    assert list(st.priors.fetch_ligand_receptor(resource="consensus")["receptor"]) == ["TGFBR1", "TGFBR2"]
    assert list(st.priors.fetch_ligand_receptor(resource="consensus", organism="mouse")["ligand"]) == ["Tgfb1"]


def test_what_cannot_be_downloaded_says_how_to_make_it(cache: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"ligand_tf_human.parquet.*ligand_tf_matrix_nsga2r_final\.rds"):
        st.priors.fetch_ligand_tf()
    with pytest.raises(FileNotFoundError, match="CellChatDB.mouse"):
        st.priors.fetch_ligand_receptor(organism="mouse")
    with pytest.raises(FileNotFoundError, match="BioMart"):
        st.priors.fetch_orthologs()
    with pytest.raises(ValueError, match="Expected `organism` to be one of 'human', 'mouse', found `'rat'`"):
        st.priors.fetch_base_grn(organism="rat")  # type: ignore[arg-type]


@pytest.mark.parametrize("organism", ["human", "mouse"])
def test_local_tables(data_dir: Path, organism: Literal["human", "mouse"]) -> None:
    name = "TGFB1" if organism == "human" else "Tgfb1"
    network = st.priors.fetch_base_grn(organism=organism)
    assert 5_000 < len(network) < len(st.priors.fetch_base_grn(organism=organism, confidence="ABCD"))
    assert name in set(st.priors.fetch_ligand_receptor(organism=organism)["ligand"])
    assert name in set(st.priors.fetch_ligand_tf(organism=organism, min_score=0.05)["ligand"])
