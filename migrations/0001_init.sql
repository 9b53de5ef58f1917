-- What this store is, who may write, and where every bucket stands (the architecture document tells
-- the reasons). Released migrations are never edited: their checksums are verified at every start.

-- The store that this database belongs to; no row until it is claimed.
CREATE TABLE ingot.store (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    store_id bytea NOT NULL CHECK (octet_length(store_id) = 16),
    claimed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The right to write. Whoever takes it changes the token; every swap locks this row FOR SHARE, so a
-- taker waits for a swap in flight and a swap that comes later finds another token.
CREATE TABLE ingot.lease (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    token bytea CHECK (octet_length(token) = 16),
    owner text,
    expires_at timestamptz,
    CHECK ((token IS NULL) = (owner IS NULL) AND (token IS NULL) = (expires_at IS NULL))
) WITH (fillfactor = 10);
INSERT INTO ingot.lease (only_row) VALUES (true);

-- Live buckets. A name is freed when its bucket is deleted; the bucket's id never comes back.
CREATE TABLE ingot.buckets (
    name text COLLATE "C" PRIMARY KEY,
    bucket bytea NOT NULL UNIQUE CHECK (octet_length(bucket) = 16)
);

-- Insert-only: a bucket's newest row is its head, older ones are its history until they are pruned,
-- and a deleted bucket ends in a tombstone. Inserting the next sequence is the compare-and-swap.
CREATE TABLE ingot.heads (
    bucket bytea NOT NULL CHECK (octet_length(bucket) = 16),
    sequence bigint NOT NULL CHECK (sequence >= 0),
    commit bigint NOT NULL CHECK (commit > 0),
    objects bytea,
    uploads bytea,
    config bytea,
    deleted boolean NOT NULL DEFAULT false,
    PRIMARY KEY (bucket, sequence)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
CREATE INDEX heads_deleted ON ingot.heads (commit) WHERE deleted;

-- Segment files and where each is in its life; apart from the heads, so that shipping never locks
-- what a swap needs.
CREATE TABLE ingot.segments (
    stream text NOT NULL CHECK (stream IN ('log', 'body')),
    number bigint NOT NULL CHECK (number >= 0),
    state text NOT NULL,
    bytes bigint NOT NULL CHECK (bytes >= 0),
    root bytea,
    first_commit bigint NOT NULL,
    last_commit bigint NOT NULL,
    PRIMARY KEY (stream, number)
);
