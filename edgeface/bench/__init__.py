"""Speed of detectors on this machine: interleaved, beside peers, in Markdown, JSON and a plot."""
