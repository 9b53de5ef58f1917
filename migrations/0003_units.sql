-- Units (compacted log segments) have states like any segment.
ALTER TABLE ingot.segments DROP CONSTRAINT segments_stream_check;
ALTER TABLE ingot.segments
    ADD CONSTRAINT segments_stream_check CHECK (stream IN ('log', 'body', 'unit'));
