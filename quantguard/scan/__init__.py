"""Does this checkpoint look prepared for a quantizer? Reads tensors on disk, never builds the model."""
