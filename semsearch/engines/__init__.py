"""Where an index can live besides a folder: the protocol, and the engines that meet it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from semsearch.engines.location import Location, is_location

if TYPE_CHECKING:
    from semsearch.engines.protocol import Engine

__all__ = ["is_location", "open_engine"]


def open_engine(location: str) -> Engine:
    """The engine that a location names, not yet connected: call its `open`.

    The token for a server is read from the environment variable MILVUS_TOKEN, unless the location has user and
    password. Raises InputError for a location that cannot be read.
    """
    from semsearch.engines.milvus import MilvusEngine

    return MilvusEngine(Location.parse(location, os.environ.get("MILVUS_TOKEN", "")))
