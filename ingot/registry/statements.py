"""The SQL of ``ingot.registry.postgres``; ``migrations/`` has the tables.

The swap is one statement, so one round trip, and all or nothing. It closes the fence first: the
lease row is locked FOR SHARE, which waits for a taker's update and then sees the taker's token, and
which a later taker waits for. A condition on the token without the lock does not fence. The fence
is also closed where a head is gone that this gateway swapped or read last: a failover lost commits,
and what is swapped on top would hide them from the next start, which puts back what the log has
behind the registry's newest commit. So the registry always holds a prefix of the log.

Everything after the fence depends on the count of heads that still are as expected, so either all
rows are inserted or none; what races past the check (an earlier swap whose answer was lost, still
running) meets the primary key. ``synchronous_commit`` is set inside, because behind a pooler or a
host's pool the session may be anyone's.
"""

from __future__ import annotations

from typing import Final

# The first three arguments of every form: token, bucket and sequence of a head that must stand.
_HELD: Final = """
    FROM ingot.lease WHERE token = $1 AND ($2::bytea IS NULL OR EXISTS (
        SELECT FROM ingot.heads WHERE bucket = $2 AND sequence = $3
    )) FOR SHARE
"""

# Then: commit, its record, and one array a column in the order of the unnest. The look-ups are
# LATERAL with a LIMIT so that they are index probes whatever the planner believes:
# these plans are made once a connection, often while the tables are still empty, and a join would
# then be planned as a scan of all heads and stay one (measured: 6 ms a swap after 100,000 heads).
SWAP: Final = f"""
WITH fence AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'on', true) {_HELD}
), move AS MATERIALIZED (
    SELECT * FROM unnest($6::bytea[], $7::bigint[], $8::bytea[], $9::bytea[], $10::bytea[],
                         $11::bytea[], $12::bytea[], $13::bytea[])
        AS m(bucket, sequence, old_objects, old_uploads, old_config, objects, uploads, config)
), ready AS MATERIALIZED (
    SELECT count(*) = cardinality($6) AS yes
    FROM fence, move CROSS JOIN LATERAL (
        SELECT * FROM ingot.heads
        WHERE bucket = move.bucket AND sequence = move.sequence - 1 LIMIT 1
    ) AS h
    WHERE h.objects IS NOT DISTINCT FROM move.old_objects
      AND h.uploads IS NOT DISTINCT FROM move.old_uploads
      AND h.config IS NOT DISTINCT FROM move.old_config
      AND NOT h.deleted
), moved AS (
    INSERT INTO ingot.heads (bucket, sequence, commit, record, objects, uploads, config)
    SELECT move.bucket, move.sequence, $4, $5, move.objects, move.uploads, move.config
    FROM ready, move WHERE ready.yes
    RETURNING 1
)
SELECT (SELECT count(*) FROM fence), (SELECT count(*) FROM moved)
"""

# The same for one bucket, with scalars for the arrays: one in eight of the time less.
SWAP_ONE: Final = f"""
WITH fence AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'on', true) {_HELD}
), moved AS (
    INSERT INTO ingot.heads (bucket, sequence, commit, record, objects, uploads, config)
    SELECT $6, $7::bigint, $4::bigint, $5, $11, $12, $13
    FROM fence CROSS JOIN LATERAL (
        SELECT * FROM ingot.heads WHERE bucket = $6 AND sequence = $7::bigint - 1 LIMIT 1
    ) AS h
    WHERE h.objects IS NOT DISTINCT FROM $8::bytea
      AND h.uploads IS NOT DISTINCT FROM $9::bytea
      AND h.config IS NOT DISTINCT FROM $10::bytea
      AND NOT h.deleted
    RETURNING 1
)
SELECT (SELECT count(*) FROM fence), (SELECT count(*) FROM moved)
"""

# A run of commits, oldest first, for a registry that is far behind: a row a move, each with its own
# commit. ``follows``: it moves from an earlier row of the run, and the caller compared the two.
SWAP_RUN: Final = f"""
WITH fence AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'on', true) {_HELD}
), move AS MATERIALIZED (
    SELECT * FROM unnest($4::bytea[], $5::bigint[], $6::bytea[], $7::bytea[], $8::bytea[],
                         $9::bytea[], $10::bytea[], $11::bytea[],
                         $12::bigint[], $13::bytea[], $14::boolean[])
        AS m(bucket, sequence, old_objects, old_uploads, old_config, objects, uploads, config,
             commit, record, follows)
), ready AS MATERIALIZED (
    SELECT count(*) = (SELECT count(*) FROM move WHERE NOT follows) AS yes
    FROM fence, move CROSS JOIN LATERAL (
        SELECT * FROM ingot.heads
        WHERE bucket = move.bucket AND sequence = move.sequence - 1 LIMIT 1
    ) AS h
    WHERE NOT move.follows
      AND h.objects IS NOT DISTINCT FROM move.old_objects
      AND h.uploads IS NOT DISTINCT FROM move.old_uploads
      AND h.config IS NOT DISTINCT FROM move.old_config
      AND NOT h.deleted
), moved AS (
    INSERT INTO ingot.heads (bucket, sequence, commit, record, objects, uploads, config)
    SELECT move.bucket, move.sequence, move.commit, move.record,
           move.objects, move.uploads, move.config
    FROM ready, move WHERE ready.yes
    RETURNING 1
)
SELECT (SELECT count(*) FROM fence), (SELECT count(*) FROM moved)
"""

# For many again, with creations (``created``: no head row may exist) and deletions (``deleted``:
# the new row is a tombstone). Names are freed before they are taken, so one commit can do both.
SWAP_ANY: Final = f"""
WITH fence AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'on', true) {_HELD}
), move AS MATERIALIZED (
    SELECT * FROM unnest($6::bytea[], $7::bigint[], $8::bytea[], $9::bytea[], $10::bytea[],
                         $11::bytea[], $12::bytea[], $13::bytea[],
                         $14::text[], $15::boolean[], $16::boolean[])
        AS m(bucket, sequence, old_objects, old_uploads, old_config, objects, uploads, config,
             name, created, deleted)
), ready AS MATERIALIZED (
    SELECT count(*) = cardinality($6) AS yes
    FROM fence, move LEFT JOIN LATERAL (
        SELECT * FROM ingot.heads WHERE bucket = move.bucket ORDER BY sequence DESC LIMIT 1
    ) AS h ON true LEFT JOIN LATERAL (
        SELECT name FROM ingot.buckets WHERE bucket = move.bucket LIMIT 1
    ) AS b ON true
    WHERE CASE WHEN move.created THEN h.bucket IS NULL
          ELSE (NOT move.deleted OR b.name = move.name)
           AND h.sequence = move.sequence - 1
           AND h.objects IS NOT DISTINCT FROM move.old_objects
           AND h.uploads IS NOT DISTINCT FROM move.old_uploads
           AND h.config IS NOT DISTINCT FROM move.old_config
           AND NOT h.deleted
          END
), dropped AS (
    DELETE FROM ingot.buckets b USING ready, move
    WHERE ready.yes AND move.deleted AND b.name = move.name AND b.bucket = move.bucket
    RETURNING 1
), named AS (
    INSERT INTO ingot.buckets (name, bucket)
    SELECT move.name, move.bucket FROM ready, move
    WHERE ready.yes AND move.created AND (SELECT count(*) FROM dropped) >= 0
    RETURNING 1
), moved AS (
    INSERT INTO ingot.heads (bucket, sequence, commit, record, objects, uploads, config, deleted)
    SELECT move.bucket, move.sequence, $4, $5, move.objects, move.uploads, move.config, move.deleted
    FROM ready, move WHERE ready.yes
    RETURNING 1
)
SELECT (SELECT count(*) FROM fence), (SELECT count(*) FROM moved)
"""

# A commit that moves no head: only the fence is asked.
FENCE: Final = f"""
SELECT count(*), 0 FROM (SELECT {_HELD}) AS held
"""

SWAPS: Final = (SWAP_ONE, SWAP, SWAP_RUN, SWAP_ANY, FENCE)

# -- resolving a swap whose answer was lost -------------------------------------------------------
# The barrier waits for a swap still running in a backend that lost its client: its FOR SHARE is in
# the way of FOR UPDATE. The heads are read by a later statement, hence with a later snapshot.
BARRIER: Final = "SELECT FROM ingot.lease FOR UPDATE"
STANDING: Final = """
SELECT h.bucket, h.sequence, h.deleted, h.objects, h.uploads, h.config
FROM unnest($1::bytea[], $2::bigint[]) AS asked(bucket, sequence)
CROSS JOIN LATERAL (
    (SELECT * FROM ingot.heads WHERE bucket = asked.bucket AND sequence = asked.sequence)
    UNION
    (SELECT * FROM ingot.heads WHERE bucket = asked.bucket ORDER BY sequence DESC LIMIT 1)
) AS h
"""

# -- a registry rebuilt from elsewhere: one transaction ------------------------------------------
# Whoever holds this lock has the lease until the commit, and no swap is under way.
HOLD: Final = "SELECT FROM ingot.lease WHERE token = $1 FOR UPDATE"
ANY_HEAD: Final = "SELECT EXISTS (SELECT FROM ingot.heads)"
DROP_NAMES: Final = "DELETE FROM ingot.buckets"  # of heads that are gone
IMPORT_NAMES: Final = """
INSERT INTO ingot.buckets (name, bucket) SELECT * FROM unnest($1::text[], $2::bytea[])
"""
IMPORT_HEADS: Final = """
INSERT INTO ingot.heads (bucket, sequence, commit, record, objects, uploads, config, deleted)
SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bytea[], $5::bytea[],
                     $6::bytea[], $7::bytea[], $8::boolean[])
"""

# -- the lease ------------------------------------------------------------------------------------
# clock_timestamp(), not now(): a statement that waited for the row must judge by when it got it.
ACQUIRE: Final = """
UPDATE ingot.lease
SET token = $1, owner = $2, expires_at = clock_timestamp() + make_interval(secs => $3)
WHERE token IS NULL OR expires_at <= clock_timestamp() OR token = $4
RETURNING 1
"""
RENEW: Final = """
UPDATE ingot.lease SET expires_at = clock_timestamp() + make_interval(secs => $2)
WHERE token = $1
RETURNING 1
"""
RELEASE: Final = """
UPDATE ingot.lease SET token = NULL, owner = NULL, expires_at = NULL WHERE token = $1
"""
HOLDER: Final = """
SELECT owner, extract(epoch FROM expires_at - clock_timestamp())::float8 AS left_s
FROM ingot.lease WHERE expires_at > clock_timestamp()
"""

CLOCK: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8"

# -- everything else ------------------------------------------------------------------------------
STORE_ID: Final = "SELECT store_id FROM ingot.store"
CLAIM: Final = "INSERT INTO ingot.store (store_id) VALUES ($1) ON CONFLICT DO NOTHING"
BUCKETS: Final = """
SELECT b.bucket, b.name, h.sequence, h.objects, h.uploads, h.config, h.commit, h.record
FROM ingot.buckets b CROSS JOIN LATERAL (
    SELECT * FROM ingot.heads WHERE bucket = b.bucket ORDER BY sequence DESC LIMIT 1
) AS h
ORDER BY b.name
"""
NEWEST_COMMIT: Final = """
SELECT commit, record, bucket, sequence FROM (
    (SELECT h.* FROM ingot.buckets b CROSS JOIN LATERAL (
        SELECT * FROM ingot.heads WHERE bucket = b.bucket ORDER BY sequence DESC LIMIT 1
    ) AS h)
    UNION ALL
    (SELECT * FROM ingot.heads WHERE deleted ORDER BY commit DESC LIMIT 1)
) AS newest
ORDER BY commit DESC LIMIT 1
"""
PUT_SEGMENT: Final = """
INSERT INTO ingot.segments (stream, number, state, bytes, root, first_commit, last_commit)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (stream, number) DO UPDATE SET state = excluded.state, bytes = excluded.bytes,
    root = excluded.root, first_commit = excluded.first_commit, last_commit = excluded.last_commit
"""
SEGMENTS: Final = """
SELECT stream, number, state, bytes, root, first_commit, last_commit
FROM ingot.segments ORDER BY stream, number
"""

# -- what is shipped ------------------------------------------------------------------------------
# Under the same fence as a swap: a gateway that lost its lease must not say what another ships.
_FENCE_ONLY: Final = """
WITH fence AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'on', true) FROM ingot.lease WHERE token = $1 FOR SHARE
)"""
_SHIPMENT: Final = """stream, number, state, digest, locations, bytes, first_commit, last_commit,
    needs_segment, needs_end, attempts, indexes"""
PUT_SHIPMENT: Final = f"""{_FENCE_ONLY}, put AS (
    INSERT INTO ingot.shipments AS s ({_SHIPMENT})
    SELECT $2, $3::bigint, $4, $5::bytea, $6::bytea[], $7::bigint, $8::bigint, $9::bigint,
           $10::bigint, $11::bigint, $12::bigint, $13::bytea[]
    FROM fence
    ON CONFLICT (stream, number) DO UPDATE SET state = excluded.state, digest = excluded.digest,
        locations = excluded.locations, bytes = excluded.bytes,
        first_commit = excluded.first_commit, last_commit = excluded.last_commit,
        needs_segment = excluded.needs_segment, needs_end = excluded.needs_end,
        attempts = excluded.attempts, indexes = excluded.indexes, updated_at = clock_timestamp()
)
SELECT count(*) FROM fence
"""
SHIPMENTS: Final = f"SELECT {_SHIPMENT} FROM ingot.shipments ORDER BY stream, number"
ADVANCE_FORGE: Final = f"""{_FENCE_ONLY}, root AS MATERIALIZED (
    SELECT * FROM unnest($3::bytea[], $4::bigint[], $5::bytea[], $6::bytea[], $7::bytea[],
                         $8::bigint[])
        AS r(bucket, sequence, objects, uploads, config, commit)
), held AS MATERIALIZED (
    SELECT * FROM unnest($9::bytea[], $10::bigint[], $11::bytea[], $12::bytea[], $13::bytea[],
                         $14::bigint[])
        AS r(bucket, sequence, objects, uploads, config, commit)
), moved AS (
    UPDATE ingot.forge_watermark AS w SET commit = $2 FROM fence
    WHERE w.commit < $2 AND NOT EXISTS (
        SELECT FROM root JOIN ingot.forge_roots f USING (bucket) WHERE f.sequence >= root.sequence
    )
    RETURNING 1
), dropped AS (
    DELETE FROM ingot.forge_roots f USING moved, root
    WHERE f.bucket = root.bucket AND root.sequence IS NULL
), put AS (
    INSERT INTO ingot.forge_roots (bucket, sequence, objects, uploads, config, commit)
    SELECT root.* FROM moved, root WHERE root.sequence IS NOT NULL
    ON CONFLICT (bucket) DO UPDATE SET sequence = excluded.sequence, objects = excluded.objects,
        uploads = excluded.uploads, config = excluded.config, commit = excluded.commit
), freed AS (
    DELETE FROM ingot.forge_held h USING moved, root WHERE h.bucket = root.bucket
), kept AS (
    INSERT INTO ingot.forge_held (bucket, sequence, objects, uploads, config, commit)
    SELECT held.* FROM moved, held
    ON CONFLICT (bucket) DO UPDATE SET sequence = excluded.sequence, objects = excluded.objects,
        uploads = excluded.uploads, config = excluded.config, commit = excluded.commit
)
SELECT (SELECT count(*) FROM fence), (SELECT count(*) FROM moved)
"""
CLAIM_FORGE: Final = f"""{_FENCE_ONLY}, claimed AS (
    UPDATE ingot.forge_watermark AS w SET service = $2, space = $3 FROM fence
    WHERE w.service IS NULL OR NOT EXISTS (SELECT FROM ingot.shipments)
    RETURNING w.service, w.space
)
SELECT (SELECT count(*) FROM fence), coalesce(c.service, w.service), coalesce(c.space, w.space)
FROM ingot.forge_watermark w LEFT JOIN claimed c ON true
"""
FORGE_WATERMARK: Final = "SELECT commit FROM ingot.forge_watermark"
FORGE_ROOTS: Final = """
SELECT bucket, sequence, objects, uploads, config, commit FROM ingot.forge_roots ORDER BY bucket
"""
FORGE_HELD: Final = """
SELECT bucket, sequence, objects, uploads, config, commit FROM ingot.forge_held ORDER BY bucket
"""
PUT_DAMAGE: Final = f"""{_FENCE_ONLY}, put AS (
    INSERT INTO ingot.damage (stream, number, starts, stops)
    SELECT $2, $3::bigint, $4::bigint[], $5::bigint[] FROM fence
    ON CONFLICT (stream, number) DO UPDATE SET starts = excluded.starts, stops = excluded.stops
)
SELECT count(*) FROM fence
"""
DAMAGE: Final = "SELECT stream, number, starts, stops FROM ingot.damage ORDER BY stream, number"

# The newest of every bucket by a walk over the primary key, one probe a bucket, and from there the
# rows before it: never a scan of all heads.
PRUNE: Final = """
WITH RECURSIVE newest AS (
    (SELECT bucket, sequence FROM ingot.heads ORDER BY bucket DESC, sequence DESC LIMIT 1)
    UNION ALL
    SELECT next.bucket, next.sequence FROM newest CROSS JOIN LATERAL (
        SELECT bucket, sequence FROM ingot.heads WHERE bucket < newest.bucket
        ORDER BY bucket DESC, sequence DESC LIMIT 1
    ) AS next
)
DELETE FROM ingot.heads WHERE ctid = ANY (ARRAY(
    SELECT h.row FROM newest CROSS JOIN LATERAL (
        SELECT ctid AS row FROM ingot.heads
        WHERE bucket = newest.bucket AND sequence <= newest.sequence - $1
        ORDER BY sequence LIMIT $2
    ) AS h
    LIMIT $2
))
"""
SETTINGS: Final = """
SELECT name, setting FROM pg_settings
WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit')
"""
SESSION: Final = "SET synchronous_commit = on; SET jit = off"
# Of the swaps' connection: planned once, and not five times first.
SESSION_SWAP: Final = SESSION + "; SET plan_cache_mode = force_generic_plan"
