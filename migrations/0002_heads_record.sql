-- The commit record (its CID) that made each head. A start looks it up in the log: a head whose commit
-- is not there stays read-only however many later commits the log holds, until it is put back or
-- restored. NULL in rows from before; those are judged by their commit's number.
ALTER TABLE ingot.heads ADD COLUMN record bytea CHECK (octet_length(record) = 36);
