-- Files on their way to Forge, each with what the network said about it. Apart from the segments'
-- states: a row stays when its file is retired.
CREATE TABLE ingot.shipments (
    stream text NOT NULL CHECK (stream IN ('body', 'unit')),
    number bigint NOT NULL CHECK (number >= 0),
    state text NOT NULL,
    bytes bigint NOT NULL CHECK (bytes > 0),
    digest bytea NOT NULL CHECK (octet_length(digest) = 34),
    locations bytea[] NOT NULL,
    first_commit bigint NOT NULL,
    last_commit bigint NOT NULL CHECK (last_commit >= first_commit),
    needs_segment bigint,
    needs_end bigint,
    attempts bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (stream, number),
    CHECK ((needs_segment IS NULL) = (needs_end IS NULL))
);

-- The commit up to which Forge has everything, and each bucket's newest head at or below it.
CREATE TABLE ingot.forge_watermark (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    commit bigint NOT NULL CHECK (commit >= 0)
);
INSERT INTO ingot.forge_watermark (commit) VALUES (0);
CREATE TABLE ingot.forge_roots (
    bucket bytea PRIMARY KEY CHECK (octet_length(bucket) = 16),
    sequence bigint NOT NULL CHECK (sequence >= 0),
    objects bytea,
    uploads bytea,
    config bytea,
    commit bigint NOT NULL CHECK (commit > 0)
);
