"""The catalogue of images, table `media`: listing, comparison with the stored rows, EXIF data and uploads."""
