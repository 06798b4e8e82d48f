"""Sample data for trying Resight: five photographs and a generator of a camera-trap archive."""
