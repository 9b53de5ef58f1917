-- Files that shipped although not all of them is good: the spans of each that hold nothing good, as
-- first bytes and bytes after the last. Without spans: blocks are missing that should be in it.
CREATE TABLE ingot.damage (
    stream text NOT NULL CHECK (stream IN ('body', 'unit')),
    number bigint NOT NULL CHECK (number >= 0),
    starts bigint[] NOT NULL,
    stops bigint[] NOT NULL CHECK (cardinality(starts) = cardinality(stops)),
    PRIMARY KEY (stream, number)
);

-- Buckets whose head at the watermark reaches what is lacking: Forge's root stays behind at an older
-- head, or there is none yet. This is the head that it has not got.
CREATE TABLE ingot.forge_held (LIKE ingot.forge_roots INCLUDING ALL);
