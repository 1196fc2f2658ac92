"""Necks: feature maps of a backbone to pyramid levels of one width."""
