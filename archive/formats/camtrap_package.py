"""Read what people state about a data package of camera traps, and describe its tables (datapackage.json).

file --read_package--> Package --descriptor--> the properties of the package
Contributors, the sampling design and the capture method are facts of a project, which no image has.
"""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from archive.formats.placed import EXAMPLE, utc
from archive.formats.records import DeploymentFact
from model_store.errors import BadRequest
from model_store.frozen import wrong_fields

VERSION = "1.0.2"
_SCHEMAS = f"https://raw.githubusercontent.com/tdwg/camtrap-dp/{VERSION}"
_COLUMNS = {
    "deployments": """deploymentID locationID locationName latitude longitude coordinateUncertainty deploymentStart
        deploymentEnd setupBy cameraID cameraModel cameraDelay cameraHeight cameraDepth cameraTilt cameraHeading
        detectionDistance timestampIssues baitUse featureType habitat deploymentGroups deploymentTags
        deploymentComments""",
    "media": """mediaID deploymentID captureMethod timestamp filePath filePublic fileName fileMediatype exifData
        favorite mediaComments""",
    "observations": """observationID deploymentID mediaID eventID eventStart eventEnd observationLevel observationType
        cameraSetupType scientificName count lifeStage sex behavior individualID individualPositionRadius
        individualPositionAngle individualSpeed bboxX bboxY bboxWidth bboxHeight classificationMethod classifiedBy
        classificationTimestamp classificationProbability observationTags observationComments""",
}
COLUMNS = {table: names.split() for table, names in _COLUMNS.items()}
"""All columns of each table, in the order of the format: its schemas allow none to be absent."""
HELP = (
    f"write its facts to a JSON file and name it with --set package=FILE, for example {EXAMPLE}; an entry of "
    "'taxonomic' with 'scientificName' and 'vernacularNames' gives the labels of these names their scientific name"
)


class _Given(BaseModel):
    """Facts of other fields stay as they are: the package of Camtrap DP has many."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Contributor(_Given):
    title: str
    role: Literal["contact", "principalInvestigator", "rightsHolder", "publisher", "contributor"] = "contributor"


class Project(_Given):
    title: str
    samplingDesign: Literal[  # noqa: N815 — the names of the format
        "simpleRandom", "systematicRandom", "clusteredRandom", "experimental", "targeted", "opportunistic"
    ]
    captureMethod: Annotated[  # noqa: N815
        list[Literal["activityDetection", "timeLapse"]], Field(min_length=1)
    ]
    individualAnimals: bool  # noqa: N815


class Taxon(_Given):
    scientificName: str  # noqa: N815
    vernacularNames: dict[str, str] = {}  # noqa: N815


class Package(_Given):
    """Facts that people state about a data package; the others are made from the images."""

    contributors: Annotated[list[Contributor], Field(min_length=1)]
    project: Project
    taxonomic: list[Taxon] = []

    def scientific_names(self) -> dict[str, str]:
        """Return the scientific name of each name of a taxon, in lower case."""
        return {
            name.casefold(): taxon.scientificName
            for taxon in self.taxonomic
            for name in (*taxon.vernacularNames.values(), taxon.scientificName)
        }


def read_package(file: Path | None) -> Package:
    """Return the stated facts. Raises BadRequest with an example if they are missing or invalid."""
    if file is None:
        raise BadRequest(f"Camtrap DP requires contributors and a project: {HELP}")
    try:
        package = Package.model_validate_json(file.read_bytes().removeprefix(BOM_UTF8))
        json.dumps(package.model_dump(), allow_nan=False)
        return package
    except ValidationError as error:
        raise BadRequest(f"invalid package {file}: {wrong_fields(error)}; {HELP}") from error
    except ValueError as error:
        raise BadRequest(f"invalid package {file}: a number is not finite") from error
    except OSError as error:
        raise BadRequest(f"cannot read {file}: {error}") from error


def descriptor(
    package: Package, deployments: Sequence[DeploymentFact], days: tuple[date, date], names: set[str], has_events: bool
) -> dict[str, Any]:
    """Return the package with the properties that its tables determine.

    `deployments` have coordinates; `names` are the scientific names in the observations.
    """
    x = [each.longitude for each in deployments if each.longitude is not None]
    y = [each.latitude for each in deployments if each.latitude is not None]
    west, east, south, north = min(x), max(x), min(y), max(y)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    levels = ["media", "event"] if has_events else ["media"]
    return {
        **package.model_dump(),
        "resources": [
            {
                "name": name,
                "path": f"{name}.csv",
                "profile": "tabular-data-resource",
                "format": "csv",
                "mediatype": "text/csv",
                "encoding": "utf-8",
                "schema": f"{_SCHEMAS}/{name}-table-schema.json",
            }
            for name in COLUMNS
        ],
        "profile": f"{_SCHEMAS}/camtrap-dp-profile.json",
        "created": utc(datetime.now(UTC)),
        "project": package.project.model_dump() | {"observationLevel": levels},
        "spatial": {"type": "Polygon", "coordinates": [ring]},
        "temporal": {"start": str(days[0]), "end": str(days[1])},
        "taxonomic": [t.model_dump() for t in package.taxonomic if t.scientificName in names],
    }
