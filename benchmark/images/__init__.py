"""Images: uint8 pixels to float batches on the device that trains, and batches to embeddings."""
