"""Training: labels, cache, augmentation, matching, losses and the loop (torch)."""
