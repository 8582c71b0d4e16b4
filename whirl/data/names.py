"""Names with a meaning that need no other module, so that they can be used before anything is loaded."""

LABEL = "label"
"""Name of the number to predict that is the label itself."""

DATASET_PREFIX = "dataset:"
"""Start of the name of a public data set (`dataset:cwru`), in place of a folder."""

LABEL = "label"
"""Name of the number to predict that is the label itself."""
