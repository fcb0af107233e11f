"""Where profiles and what belongs to them are kept: one protocol, MongoDB and memory, one conformance suite.

Guarantees, on both:

* a profile is one document, changed by compare-and-set on its version together with its facts;
* a source record key belongs to one living profile at most, whoever writes at the same time: on MongoDB its link,
  unique by its id, is claimed before the profile is written, and nobody takes over one that is fresh or stood behind;
* nothing a query asks for is unindexed on MongoDB.
"""

from services.profiles.store.memory import MemoryStore
from services.profiles.store.mongo import MongoStore
from services.profiles.store.protocol import Changes, Done, Found, Store, Writing
from services.profiles.store.shelf import MemoryShelf, MongoShelf, Shelf

__all__ = [
    "Changes",
    "Done",
    "Found",
    "MemoryShelf",
    "MemoryStore",
    "MongoShelf",
    "MongoStore",
    "Shelf",
    "Store",
    "Writing",
]
