"""What the files that a user names on the command line hold."""

from preflow.config.loading import recipe_for_data
from preflow.config.validation import ReadingSettings
from preflow.data.files.sources import DataSource, resolve_sources
from preflow.data.recognition import first_rows, recognised_kinds
from preflow.data.validated import DataKind
from preflow.errors import ConfigError


def sources_of(entry: str) -> tuple[DataSource, ...]:
    """The files of a file, folder or hub data set; a relative path starts at the working folder.

    Raises:
        DataFileError: It is absent or cannot be read.
    """
    recipe = recipe_for_data({"dpo": [entry]})
    return resolve_sources((recipe.dpo and recipe.dpo.dataset) or ())


def kind_of(entry: str) -> DataKind:
    """What a file, folder or hub data set holds; pairs where no row has a known format.

    Raises:
        ConfigError: Its rows can be read as demonstrations and as pairs.
        DataFileError: It is absent or cannot be read.
    """
    seen = recognised_kinds(first_rows(sources_of(entry)), ReadingSettings())
    if len(seen) > 1:
        raise ConfigError(
            f"the rows of {entry} can be read in two ways: --kind demonstrations ({seen['demonstrations']}), or --kind "
            f"preferences ({seen['preferences']}). Give one of them"
        )
    return next(iter(seen), "preferences")
