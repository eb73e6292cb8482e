"""The network: tensors in, tensors out. Knows neither files nor params files."""
