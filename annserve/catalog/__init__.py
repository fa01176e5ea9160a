"""Items' metadata and users' histories: the stores that hold them, and what a filter means on a document."""
