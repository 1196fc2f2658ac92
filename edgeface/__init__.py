"""edgeface: faces, scores and landmarks from the best backend of the machine."""
