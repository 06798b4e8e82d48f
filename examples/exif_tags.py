"""Make the EXIF block of a shot: time, place, camera and orientation."""

from fractions import Fraction

from PIL import ExifTags, Image

from examples.archive_plan import CAMERAS, Shot


def exif_of(shot: Shot) -> bytes:
    """Return the tags that the camera of the shot writes; each camera writes different ones.

    The result is bytes instead of Image.Exif, because Pillow's TIFF writer drops times and places of the latter.
    """
    camera = CAMERAS[shot.camera]
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = camera.make
    exif[ExifTags.Base.Model] = camera.model
    exif[ExifTags.Base.Orientation] = shot.orientation
    details = exif.get_ifd(ExifTags.IFD.Exif)
    details[ExifTags.Base.DateTimeOriginal] = f"{shot.taken:%Y:%m:%d %H:%M:%S}"
    details[ExifTags.Base.SubsecTimeOriginal] = f"{shot.taken.microsecond // 1000:03d}"
    if camera.utc_offset:
        details[ExifTags.Base.OffsetTimeOriginal] = camera.utc_offset
    if camera.serial:
        details[ExifTags.Base.BodySerialNumber] = camera.serial
    if camera.lat_lon:
        latitude, longitude = camera.lat_lon
        place = exif.get_ifd(ExifTags.IFD.GPSInfo)
        place[ExifTags.GPS.GPSLatitudeRef] = "N" if latitude >= 0 else "S"
        place[ExifTags.GPS.GPSLatitude] = degrees_minutes_seconds(latitude)
        place[ExifTags.GPS.GPSLongitudeRef] = "E" if longitude >= 0 else "W"
        place[ExifTags.GPS.GPSLongitude] = degrees_minutes_seconds(longitude)
    return exif.tobytes()


def degrees_minutes_seconds(angle: float) -> tuple[Fraction, Fraction, Fraction]:
    """Convert the absolute value of an angle in degrees to EXIF; seconds are rounded to 0.01."""
    hundredths = round(abs(angle) * 360_000)
    minutes, hundredths = divmod(hundredths, 6_000)
    degrees, minutes = divmod(minutes, 60)
    return Fraction(degrees), Fraction(minutes), Fraction(hundredths, 100)
