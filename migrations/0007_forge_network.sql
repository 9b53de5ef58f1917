-- Whom the shipments went to: the DIDs of the upload service and of the space. What one network has
-- confirmed says nothing about another. NULL until a gateway ships, or where that was before this.
ALTER TABLE ingot.forge_watermark ADD COLUMN service text, ADD COLUMN space text;
