"""The two collections that hold an index in Milvus: their columns and indexes, and what they were made for.

NAME has a row for each passage. NAME_documents has one for each document (its head), each piece of a long text, each
state, each writer at work, and one that says what the collections were made for. That row is written last, so without
it there is no index, and making it can begin again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from semsearch.engines.expressions import TOKEN_LENGTH, Column, columns_of
from semsearch.engines.location import Location
from semsearch.engines.milvus_coding import dumped, loaded
from semsearch.engines.milvus_connection import Connection, RefusedError
from semsearch.engines.milvus_rows import META
from semsearch.engines.protocol import Specification
from semsearch.errors import (
    CorruptIndexError,
    IndexFormatError,
    IndexMismatchError,
    IndexNotFoundError,
    InputError,
)

__all__ = ["Layout", "blank", "open_layout"]

FORMAT = 1
STRING = 65_535  # the longest that Milvus allows, in bytes
META_KEY = "m"
DUMMY = 2  # every collection must have a vector; that of the documents means nothing

# Index parameters that hold from a million passages to a billion; searching widens `ef` and `nprobe` with k.
INDEX_PARAMETERS: Mapping[str, Mapping[str, int]] = {
    "HNSW": {"M": 16, "efConstruction": 200},
    "IVF_FLAT": {"nlist": 1024},
    "IVF_SQ8": {"nlist": 1024},
}


@dataclass(frozen=True, slots=True)
class Layout:
    """What a pair of collections was made for, and how. `index` is the kind of vector index, as Milvus writes it.

    `text` says whether there is BM25, `token_keys` whether filters have to do without "not".
    """

    passages: str
    documents: str
    specification: Specification
    index: str
    text: bool
    token_keys: bool

    @property
    def columns(self) -> Mapping[str, Column]:
        """The columns of declared fields."""
        return columns_of(self.specification.fields)

    def search_parameters(self, k: int) -> dict[str, Any]:
        """What a search for k passages passes to the index."""
        if self.index == "HNSW":
            return {"ef": max(128, 2 * k)}
        if self.index.startswith("IVF"):
            return {"nprobe": 64}
        return {"search_list": max(128, 2 * k)} if self.index == "DISKANN" else {}


def open_layout(connection: Connection, specification: Specification | None, *, create: bool) -> Layout:
    """Find the collections at the connection's location, or make them, and have the server load them.

    Raises IndexNotFoundError, IndexMismatchError and IndexFormatError as `Engine.open` says.
    """
    location = connection.location
    layout = _read(connection)
    if layout is None:
        if specification is None or not create:
            raise IndexNotFoundError(
                f"There is no index at {location}. Open it for writing, or copy one there: semsearch copy FROM TO."
            )
        layout = _make(connection, _merged(specification, location))
    elif specification is not None:
        _compare(location, layout.specification, specification)
    _agree(location, layout)
    _load(connection, layout)
    if location.consistency is not None:
        layout = replace(layout, specification=replace(layout.specification, consistency=location.consistency))
    return layout


def _names(location: Location) -> tuple[str, str]:
    return location.collection, f"{location.collection}_documents"


def _merged(specification: Specification, location: Location) -> Specification:
    given = {name: getattr(location, name) for name in ("fields", "shards", "replicas", "consistency")}
    return replace(specification, **{name: value for name, value in given.items() if value is not None})


def _read(connection: Connection) -> Layout | None:
    """What the collections say of themselves; None if there are none, or making them was interrupted."""
    passages, documents = _names(connection.location)
    if not all(connection.call("has_collection", name) for name in (passages, documents)):
        return None
    if not _is_ours(connection, documents):
        return None
    connection.call("load_collection", documents)
    rows = connection.call(
        "query", documents, filter=f'pk == "{META_KEY}"', output_fields=["description"], consistency_level="Strong"
    )
    if not rows:
        return None
    try:
        value = loaded(rows[0]["description"])
        if value["format"] > FORMAT:
            raise IndexFormatError(
                f"The index at {connection.location} has format {value['format']}; this release knows up to {FORMAT}. "
                "Install a newer release of semsearch."
            )
        specification = Specification(**value["specification"])
        return Layout(passages, documents, specification, value["index"], value["text"], value["token_keys"])
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptIndexError(
            f"What {connection.location} was made for cannot be read ({type(error).__name__}: {error}). "
            "Drop the collection and index the documents again."
        ) from error


def _is_ours(connection: Connection, collection: str) -> bool:
    found = connection.call("describe_collection", collection)
    return {"pk", "kind", "described"} <= {each["name"] for each in found["fields"]}


def _compare(location: Location, stored: Specification, wanted: Specification) -> None:
    for what, own, other in (
        ("the encoder", dict(stored.encoder), dict(wanted.encoder)),
        ("the analyzer", dict(stored.analyzer), dict(wanted.analyzer)),
        ("vectors of the dimension", stored.dimension, wanted.dimension),
    ):
        if own != other:
            raise IndexMismatchError(
                f"The index at {location} was made with {what} {own}, and not with {other}. "
                "Open it with the same, or index the documents again into another collection."
            )


def _agree(location: Location, layout: Layout) -> None:
    """What a location asks for of a collection that is there already must be what it has."""
    stored = layout.specification
    if location.fields is not None and dict(location.fields) != dict(stored.fields):
        raise InputError(
            f"{location} was made with fields={_written(stored.fields) or 'none'}, which cannot be changed. Leave "
            "fields= out, or copy the index to another collection that has them: semsearch copy FROM TO."
        )
    if location.index is not None and _index_type(location.index) != layout.index:
        raise InputError(
            f"{location} was made with index={layout.index.lower()}. Leave index= out, or copy the index to another "
            "collection: semsearch copy FROM TO."
        )


def _written(fields: Mapping[str, str]) -> str:
    return ",".join(f"{name}:{kind}" for name, kind in fields.items())


def _index_type(name: str) -> str:
    return "AUTOINDEX" if name == "auto" else name.upper()


def _make(connection: Connection, specification: Specification) -> Layout:
    location = connection.location
    passages, documents = _names(location)
    for name in (passages, documents):
        if connection.call("has_collection", name):
            _clear_away(connection, name)
    index = _index_type(location.index or "flat")
    is_core = connection.is_core
    layout = Layout(passages, documents, specification, index, connection.version >= (2, 5) or is_core, is_core)
    if layout.text:
        try:
            _make_passages(connection, layout)
        except RefusedError:
            if not is_core or connection.call("has_collection", passages):  # before 2.5 there is no BM25
                raise
            layout = replace(layout, text=False)
    if not layout.text:
        _make_passages(connection, layout)
    _make_documents(connection, layout)
    _load(connection, layout)
    value = {"specification": asdict(specification), "index": index, "text": layout.text}
    row = {"description": dumped({"format": FORMAT, "token_keys": layout.token_keys, **value})}
    connection.call("upsert", documents, [blank(layout) | row | {"pk": META_KEY, "kind": META}])
    made = _read(connection)
    if made is None:
        raise CorruptIndexError(f"{location} was made, but cannot be read back. Drop the collection and try again.")
    _compare(location, made.specification, specification)  # another process may have made it at the same time
    return made


def _clear_away(connection: Connection, name: str) -> None:
    """Drop a collection whose making was interrupted; one with rows, or of somebody else, is left alone."""
    fields = {each["name"] for each in connection.call("describe_collection", name)["fields"]}
    ours = {"version", "tokens", "ranges"} <= fields
    rows = int(connection.call("get_collection_stats", name).get("row_count", 0)) if ours else 1
    if not ours or rows:
        raise InputError(
            f"{connection.location} names a collection that is there already ({name}) and is no index of semsearch. "
            "Choose another name."
        )
    connection.call("drop_collection", name)


def _make_passages(connection: Connection, layout: Layout) -> None:
    from pymilvus import DataType

    schema = _schema(layout)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=layout.specification.dimension)
    schema.add_field("embedded", DataType.BOOL)
    for name, length in (("document", 40), ("version", 40), ("digest", 80), ("heading", STRING), ("text", STRING)):
        schema.add_field(name, DataType.VARCHAR, max_length=length)
    for name in ("ordinal", "first", "past", "page"):
        schema.add_field(name, DataType.INT64)
    indexes: dict[str, dict[str, Any]] = {
        "vector": {"index_type": layout.index, "metric_type": "IP", "params": INDEX_PARAMETERS.get(layout.index, {})}
    }
    if layout.text:
        _add_text(schema)
        indexes["sparse"] = {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "BM25", "params": {}}
    _create(connection, layout.passages, schema, layout.specification, indexes, ["document", "digest"], layout)


def _add_text(schema: Any) -> None:
    from pymilvus import DataType, Function, FunctionType

    schema.add_field(
        "terms", DataType.VARCHAR, max_length=STRING, enable_analyzer=True, analyzer_params={"tokenizer": "standard"}
    )
    schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(
        Function(
            name="bm25", function_type=FunctionType.BM25, input_field_names=["terms"], output_field_names=["sparse"]
        )
    )


def _make_documents(connection: Connection, layout: Layout) -> None:
    from pymilvus import DataType

    schema = _schema(layout)
    schema.add_field("pk", DataType.VARCHAR, is_primary=True, max_length=8_000)
    schema.add_field("nothing", DataType.FLOAT_VECTOR, dim=DUMMY)
    for name, length in (("version", 40), ("content", 40), ("salts", STRING)):
        schema.add_field(name, DataType.VARCHAR, max_length=length)
    for name in ("name", "description", "text", "file"):
        schema.add_field(name, DataType.VARCHAR, max_length=STRING)
    for name in ("kind", "described", "pieces", "passages", "root"):
        schema.add_field(name, DataType.INT64)
    indexes = {"nothing": {"index_type": "FLAT", "metric_type": "IP", "params": {}}}
    _create(connection, layout.documents, schema, layout.specification, indexes, ["kind", "root"], layout)


def _schema(layout: Layout) -> Any:
    """A schema with what filters look at."""
    from pymilvus import DataType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(
        "tokens", DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=4096, max_length=TOKEN_LENGTH
    )
    schema.add_field("ranges", DataType.JSON)
    for column in layout.columns.values():
        for name in (column.low, column.high):
            if column.kind == "s":
                schema.add_field(name, DataType.VARCHAR, max_length=256)
            else:
                schema.add_field(name, DataType.DOUBLE)
    return schema


def _create(
    connection: Connection,
    name: str,
    schema: Any,
    specification: Specification,
    indexes: Mapping[str, Mapping[str, Any]],
    scalars: list[str],
    layout: Layout,
) -> None:
    connection.call(
        "create_collection", name, schema=schema, num_shards=specification.shards, consistency_level="Session"
    )
    for field, parameters in indexes.items():
        _index(connection, name, field, parameters)
    pairs = [each for column in layout.columns.values() for each in (column.low, column.high)]
    for field in (*scalars, *pairs, "tokens"):
        _index_scalar(connection, name, field)


def _index(connection: Connection, name: str, field: str, parameters: Mapping[str, Any]) -> None:
    given = connection.raw.prepare_index_params()
    given.add_index(field, **parameters)
    connection.call("create_index", name, given, sync=False)


def _index_scalar(connection: Connection, name: str, field: str) -> None:
    """Index a column that filters look at, by the kind of index that the server has for it, if it has any."""
    for kind in ("INVERTED", "Trie", "STL_SORT"):
        try:
            return _index(connection, name, field, {"index_type": kind})
        except RefusedError:
            continue
    return None


def _load(connection: Connection, layout: Layout) -> None:
    replicas = layout.specification.replicas
    options = {"replica_number": replicas} if replicas > 1 else {}
    for name in (layout.passages, layout.documents):
        connection.call("load_collection", name, **options)


def blank(layout: Layout) -> dict[str, Any]:
    """A row of the collection of documents that says nothing; every column has to be given."""
    empty = dict.fromkeys(("version", "content", "salts", "name", "description", "text", "file"), "")
    numbers = {"described": 0, "pieces": 0, "passages": 0, "root": -1, "tokens": [], "ranges": {}}
    pairs = [(column, column.missing) for column in layout.columns.values()]
    own = {name: value for column, ends in pairs for name, value in zip((column.low, column.high), ends, strict=True)}
    return {"nothing": [0.0] * DUMMY, **empty, **numbers, **own}
