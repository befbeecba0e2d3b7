"""The version, apart from the package's public names, so that every part may read it without importing upwards."""

from typing import Final

__version__: Final = "0.1.0"
