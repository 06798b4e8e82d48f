"""Client of Resight for field stations: send a folder, resumable and each content once; detect in one image.

send_folder("/media/card", url="http://server:8000", model="deer", camera="north", token="…") -> Summary
detect("buck.jpg", url="http://server:8000", model="deer", token="…") -> the answer of POST /v1/detect
"""

from resight_client.send import Progress, Summary, send_folder
from resight_client.server import ClientError, Refused, Unreachable, detect

__all__ = [
    "ClientError",
    "Progress",
    "Refused",
    "Summary",
    "Unreachable",
    "detect",
    "send_folder",
]
