"""Results of other tools as those of external model versions."""
