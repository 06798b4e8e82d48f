"""Published views and what reads them: SQL, search of images, exports and the health of the archive."""
