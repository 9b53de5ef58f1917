"""The Forge network's protocol: UCAN 1.0 tokens, their containers, indexes and queries.

All modules here are pure: bytes, random bytes and ``now`` (Unix seconds) come as arguments, and
nothing is fetched. What decodes bytes raises FormatError, with the offset, and never anything else;
what judges a token raises an error under the protocol's own name (``errors``). Read in this order:

    did, document, keys    who somebody is, and which keys may sign for them
    varsig, envelope       signed bytes and what they are signed with
    command, selector, policy    what a delegation allows
    token                  delegation, invocation, receipt; task; promise
    signature, validate, chain   is this allowed, and which proofs would make it so
    container              tokens on their way: HTTP bodies and the X-UCAN-Container header
    index, query           where blocks lie: index archives, the indexer's answers
"""
