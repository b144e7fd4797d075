"""TensorRT engines: building, describing and running them."""
