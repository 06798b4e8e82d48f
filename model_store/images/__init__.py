"""Image files to upright pixels, and the parts of an image: crops and drawn boxes."""
