"""What the TensorRT backends share: CUDA, engines, their cache, their execution."""
