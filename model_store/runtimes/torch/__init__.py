"""Programs of torch.export (`.pt2`), read as data and run by PyTorch with a list of allowed operators."""
