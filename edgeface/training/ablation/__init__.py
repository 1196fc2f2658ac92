"""Ablation: the same training with parts switched on and off, and what each is worth."""
