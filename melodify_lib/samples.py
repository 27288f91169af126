"""Photographs to try, out of the packages that carry them (scikit-image, scikit-learn)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from melodify_lib.errors import InputError, MissingDependencyError, install

# Package, path inside it. Public domain or CC0 (scikit-image), CC BY (scikit-learn: china, flower).
_FILES = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
}
SAMPLES = tuple(_FILES)


def sample_picture(name: str) -> Path:
    """Path of one of the photographs in `SAMPLES`."""
    if name not in _FILES:
        raise InputError(f"no sample picture {name!r}; choose one of: {', '.join(SAMPLES)}")
    package, inside = _FILES[name]
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(f"the sample pictures come with an extra: {install('notebooks')}")
    return Path(spec.submodule_search_locations[0]) / inside
