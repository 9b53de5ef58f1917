"""Takes sealed files to the Forge network, in the background, and knows how far Forge has the log.

    lifecycle    the states of a file on its way; the order; the watermark
    roots        each bucket's newest head at or below the watermark
    held         which buckets stay behind it, after damage
    sources      what is asked of whoever has the files: the segment store
    shipper      ``Shipper``: does it, again and again until it is done

Nothing of a request waits for it. Postgres holds the queue (``ingot.ports.Registry``), and every
step may be repeated after a crash at any point of it.

Nothing is imported here: a gateway without a network knows the states and needs no HTTP client,
whose import takes as long as all of the rest.
"""
