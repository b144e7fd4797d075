"""The HTTP service: pictures at once, clips as jobs, tensors by the Open Inference Protocol."""
