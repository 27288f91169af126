"""Every error that Melodify raises on purpose, as one tree.

    MelodifyError
    ├── SettingsError             a setting has a value that cannot be used
    ├── MissingDependencyError    an optional package is not installed
    ├── InputError                what the caller handed in cannot be used
    │   ├── ImageError            not a picture, damaged, or too large
    │   ├── CaptionError          an empty or over-long caption
    │   ├── DescriptionError      text that is not a music description
    │   ├── DatasetError          a JSONL dataset breaks its contract
    │   └── CardError             a file that is not a track card
    ├── ModelError                a model's file is missing, damaged, or of another format
    │   └── OutOfMemoryError      there is no memory for a model, or for what it is asked
    ├── BusyError                 too much is being done or waits already; try again later
    ├── LicenceError              music for commercial use was asked for, and the generator's licence forbids it
    ├── PaidError                 a service that costs money was asked for and the settings do not allow it
    ├── BudgetError               going on would cost more than was allowed
    ├── CloudError                a cloud service refused, failed, or did not answer in time
    ├── StoreError                an object is missing, or its name is not allowed
    ├── ReplayError               a card cannot be played again to the same bytes
    ├── NotebookError             a notebook failed; names the notebook and the cell
    └── PipelineError             a pipeline run failed; names the task

A message says what was wrong, with the value and its unit, and what to do next.
The command line prints it as one line and exits with 1.
"""


class MelodifyError(Exception):
    """Root of the tree: catch this to catch everything that Melodify raises on purpose."""


class SettingsError(MelodifyError):
    """A setting has a value that cannot be used."""


class MissingDependencyError(MelodifyError):
    """An optional package is not installed; the message has the install command (`install`)."""


def install(extra: str) -> str:
    """The command that installs an extra. Melodify is no package on PyPI: it is installed where it was cloned."""
    return f"in Melodify's folder, pip install --constraint constraints.txt '.[{extra}]'"


class InputError(MelodifyError):
    """What the caller handed in cannot be used."""


class ImageError(InputError):
    """Not a picture, damaged, or larger than allowed."""


class CaptionError(InputError):
    """An empty or over-long caption."""


class DescriptionError(InputError):
    """A text that does not read as a music description."""


class DatasetError(InputError):
    """A JSONL dataset breaks its contract; the message names the line and the field."""


class CardError(InputError):
    """A file that is not a track card."""


class ModelError(MelodifyError):
    """A model's file is missing, damaged, or of another format."""


class BusyError(MelodifyError):
    """Too much is being done or waits already; the same request may be taken later."""


class OutOfMemoryError(ModelError):
    """There is no memory for a model, or for what it is asked; the message has the figure."""


class LicenceError(MelodifyError):
    """Music for commercial use was asked for, and the licence of what would make it forbids that."""


class PaidError(MelodifyError):
    """A service that costs money was asked for, and the settings do not allow it."""


class BudgetError(MelodifyError):
    """Going on would cost more than was allowed; what is done and paid for is kept."""


class CloudError(MelodifyError):
    """A cloud service refused, failed, or did not answer in time; the message names it and says what to do.

    `status` is the HTTP status, None when no answer arrived; `retry_after` is in seconds, where the
    service named a time. `is_unsent` when it is certain that the request never left.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        is_unsent: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.is_unsent = is_unsent


class StoreError(MelodifyError):
    """An object is missing from the store, or its name is not allowed."""


class ReplayError(MelodifyError):
    """A card cannot be played again to the same bytes; the message says what differs."""


class NotebookError(MelodifyError):
    """A notebook failed; the message names the notebook and the cell."""


class PipelineError(MelodifyError):
    """A pipeline run failed; the message names the task."""
