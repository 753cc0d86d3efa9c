"""Features as PyTorch takes them: tensors, and the batches of a training set that is larger than memory."""
