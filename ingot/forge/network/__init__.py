"""The Forge network for tests and development: the services themselves, over real HTTP.

    network        ``Network``: all services of one directory, started and stopped together
    service        what they share: HTTP, running invocations, receipts, DID documents
    upload         the upload service; ``additions``: a blob's way through it
    node           a storage node; ``retrieval``: its bytes over the header; ``blobs``: its files
    indexer        the indexing service; ``queries``: what it answers
    faults         what goes wrong on demand
    peers, state   what a service asks of others, and what it remembers; ``records``: a node's
    arguments      what commands share; ``ports``, ``thread``: what a network lives on

It judges tokens with the same pure modules as a client does, and by the same rules as the real
services (``ingot.forge``). No part of a gateway imports it but ``ingot.testing`` and the command
``ingot dev-network``.
"""

from ingot.forge.network.network import Network

__all__ = ["Network"]
