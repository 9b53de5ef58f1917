-- The index archives of a shipped file, as multihashes: blobs of the space that say where the file's
-- blocks lie. Empty in rows from before and while the file is on its way.
ALTER TABLE ingot.shipments ADD COLUMN indexes bytea[] NOT NULL DEFAULT '{}';
