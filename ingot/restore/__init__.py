"""``ingot restore``: a store made whole again for a gateway that is stopped.

    command         options, help, exit status; registered by ``cli.build_parser``
    from_segments   the database is lost, the data directory is there
    from_forge      both are lost: all is in the space of the Forge network
    survey          what lies in a space: which blobs are segments, which tell of their blocks
    line            which units follow one another up to the commit that the space names
    target          registry, lease and files that a restore writes to

Guarantees: nothing is written to a registry that holds heads, is another store's, or whose lease
somebody has; the heads are written in one transaction, and last, so an interrupted restore is
begun again. With ``--dry-run`` nothing is changed and nothing is created.
"""

from ingot.restore.command import register

__all__ = ["register"]
