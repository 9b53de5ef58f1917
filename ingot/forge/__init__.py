"""The Forge network's protocol: UCAN 1.0 tokens, their containers, indexes and queries.

All modules named first are pure: bytes, random bytes and ``now`` (Unix seconds) come as arguments,
and nothing is fetched. What decodes bytes raises FormatError, with the offset, and never anything
else; what judges a token raises an error under the protocol's own name (``errors``). The package
``network`` is the services themselves, for tests. Read in this order:

    did, document, keys          who somebody is, and which keys may sign for them
    values                       the data model of tokens; reading values by path; promises
    command, selector, policy    what a delegation allows
    varsig, envelope, token      delegation, invocation, receipt, task; the bytes that are signed
    signature, validate, chain   is this allowed, and which proofs would make it so
    container                    tokens on their way: HTTP bodies, the X-UCAN-Container header
    index, query                 where blocks lie: index archives, the indexer's answers

A client's request, without the sending: ``chain.find`` the proofs, ``token.invoke`` with their
CIDs, ``container.encode`` them all as the body; of the answer ``container.decode``, ``receipts_of``
the invocation's task, ``validate.validate_receipt``, ``receipt.result()``. A service's side:
``container.decode``, ``signature.unresolved`` for the documents to fetch, ``validate.validate`` for
every invocation whose ``executor`` it is, ``token.answer`` with an ``ok`` or ``error.value()``.

A client with sockets and files is made of these; ``client`` is where to begin:

    breaker, retry, http         one session: bounds, timeouts, services left alone for a while
    resolver, invoker            DID documents; one invocation sent, its receipt judged
    blob, allocation, upload     a blob's bytes; where they go; adding, publishing, removing
    reading, retrieve            one read over several locations; asking the indexer
    identity, keystore           key, space and rights; the same in files
"""
