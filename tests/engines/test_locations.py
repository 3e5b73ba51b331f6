"""What a location says, and what is no location."""

from __future__ import annotations

from pathlib import Path

import pytest

from semsearch.engines import is_location, open_engine
from semsearch.engines.location import Location
from semsearch.errors import InputError


@pytest.mark.parametrize(
    ("location", "shown", "uri"),
    [
        ("milvus://host/handbook", "milvus://host:19530/handbook", "http://host:19530"),
        ("milvus://host:1234/_a9", "milvus://host:1234/_a9", "http://host:1234"),
        ("milvus://[::1]:99/x?secure=true", "milvus://[::1]:99/x", "https://[::1]:99"),
        ("milvus://ada:s%2Fe%40cret@host/x", "milvus://host:19530/x", "http://host:19530"),
        ("milvus:///data/a%20b.db", "milvus:///data/a b.db", "/data/a b.db"),
        ("milvus:///data/x.db?collection=other", "milvus:///data/x.db?collection=other", "/data/x.db"),
    ],
)
def test_where_it_is(location: str, shown: str, uri: str) -> None:
    parsed = Location.parse(location)
    assert (str(parsed), parsed.uri) == (shown, uri)


def test_options() -> None:
    plain = Location.parse("milvus://host/x")
    assert (plain.timeout, plain.fields, plain.shards, plain.replicas) == (30.0, None, None, None)
    assert (plain.index, plain.consistency, plain.database, plain.secure) == (None, None, "", False)
    full = Location.parse(
        "milvus://host/x?fields=year:int,a%3Ab:str&shards=3&replicas=2&consistency=strong&timeout=1.5&index=hnsw&"
        "database=library&secure=false"
    )
    assert full.fields == {"year": "int", "a:b": "str"}
    assert (full.shards, full.replicas, full.consistency, full.timeout) == (3, 2, "strong", 1.5)
    assert (full.index, full.database, full.secure) == ("hnsw", "library", False)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("qdrant://host/x", "no engine for qdrant://"),
        ("milvus://host", "no name for a collection"),
        ("milvus://host/a/b", "'a/b' is no name"),
        ("milvus://host/9a", "'9a' is no name"),
        ("milvus://host/x?collection=y", "collection= is for files"),
        ("milvus://host:port/x", "no host and port"),
        ("milvus:///data/x", "'/data/x' is no absolute path"),
        ("milvus:x.db", "'x.db' is no absolute path"),
        ("milvus:///x.db?secure=true", "secure= is for servers"),
        ("milvus:///x.db?collection=a-b", "'a-b' is no name"),
        ("milvus://host/x?shard=1", "no option 'shard'.*Known: fields, shards, replicas, index, consistency, timeout"),
        ("milvus://host/x?shards=0", "shards=0 is no whole number"),
        ("milvus://host/x?shards=1&shards=2", "shards= is given twice"),
        ("milvus://host/x?timeout=nan", "timeout=nan"),
        ("milvus://host/x?timeout=-1", "timeout=-1"),
        ("milvus://host/x?consistency=weak", "consistency=weak is not known. Known: strong, session, bounded"),
        ("milvus://host/x?index=annoy", "index=annoy"),
        ("milvus://host/x?fields=year", "fields=year should list"),
        ("milvus://host/x?fields=year:date", "Types: str, int, float, bool"),
        ("milvus://host/x?fields=a:int,a:str", "each name once"),
        ("milvus://host/x?secure=yes", "true or false"),
        ("milvus://host/x?database=", "database= is empty"),
    ],
)
def test_what_cannot_be_read(location: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_engine(location)


def test_credentials_are_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILVUS_TOKEN", "root:Milvus")
    for location in ("milvus://ada:lovelace@host/x", "milvus://host/x"):
        engine = open_engine(location)
        parsed = Location.parse(location, "root:Milvus")
        for text in (repr(engine), engine.location, repr(parsed), str(parsed), parsed.uri):
            assert "lovelace" not in text
            assert "Milvus" not in text.replace("MilvusEngine", "")
    assert Location.parse("milvus://host/x", "root:Milvus").credentials == "root:Milvus"
    assert Location.parse("milvus://ada:lovelace@host/x", "root:Milvus").credentials == "ada:lovelace"
    # A slash in a password ends the host: what comes after it is half of a password.
    for location in ("milvus://ada:love/lace@host/x", "milvus://ada:99/lace@host/x"):
        with pytest.raises(InputError) as error:
            Location.parse(location)
        assert "lace" not in str(error.value)
        assert "love" not in str(error.value)


@pytest.mark.parametrize("folder", ["indexes/handbook", "/abs", "~/x", "C:\\x", "", "milvus", Path("a"), None])
def test_a_folder_is_no_location(folder: object) -> None:
    assert not is_location(folder)


def test_any_scheme_is_a_location() -> None:
    assert is_location("milvus://host/x")
    assert is_location("Milvus:///x.db")
    assert is_location("s3+x://bucket")
