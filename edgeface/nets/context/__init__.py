"""Context modules: enlarge the receptive field of a pyramid level, size and width unchanged."""
