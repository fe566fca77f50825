"""Models on the same images: paired differences with intervals, and whether they are equivalent."""
