"""Files of other tools: written from a view, and read as results of models that are not in the store."""
