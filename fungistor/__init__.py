"""FungiStor: publish once, fetch by IPFS CID from the nearest places, with any 4 of 20 places dead.

The rooms, upper ones may import lower ones and never back:

    gateway                                     HTTP front doors
    node                                        config, wiring, run, command line
    objects                                     publish and read; knows ports, no adapters
    pool                                        the members as one shard store
    zdb, catalog, keys, cache                   storage daemon and client; the serialized truth; key hierarchy
    placement, coding, dag                      pure: who holds what; seal and erasure-code; CIDs and UnixFS
    errors, ids, limits                         the floor
"""

__version__ = "0.1.0"
