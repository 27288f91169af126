"""What moves in a notebook: a bar that shows how far a long cell is, and a form that plays one's own picture.

Where no one can press a button (papermill, the pages of a run) the bar is left out and the form says what it is for.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets
from IPython.display import Audio
from tqdm.auto import tqdm

from melodify_lib import plots
from melodify_lib.errors import InputError, MelodifyError
from melodify_lib.flow import Watcher
from melodify_lib.genres import GENRES
from melodify_lib.image import open_image

if TYPE_CHECKING:
    from melodify_lib.flow import Composer
    from melodify_lib.nouns import Caption, MusicDescription

_STAGES = {"caption": "looking at it", "describe": "finding words for music", "play": "playing"}


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for a cell that takes long; gives what the library's functions take as `on_progress`."""
    with tqdm(desc=what) as bar:

        def on_progress(done: int, total: int) -> None:
            if bar.total != total:
                bar.reset(total)
            bar.update(done - bar.n)

        yield on_progress


class SongForm(widgets.VBox):  # type: ignore[misc]
    """Choose a picture and a genre, press Play: `composer` makes its song, and below are picture, words and player."""

    def __init__(self, composer: Composer, *, seconds: float = 20) -> None:
        self.upload = widgets.FileUpload(accept="image/jpeg,image/png,image/webp", description="Picture")
        self.genre = widgets.Dropdown(
            options=[("what fits the picture", ""), *((genre, genre) for genre in GENRES)], description="Genre"
        )
        self.button = widgets.Button(description="Play", button_style="primary", icon="play")
        self.bar = widgets.FloatProgress(max=1, layout={"visibility": "hidden"})
        self.output = widgets.Output()
        self._composer, self._seconds = composer, seconds
        self.button.on_click(self._play)
        super().__init__([widgets.HBox([self.upload, self.genre, self.button, self.bar]), self.output])

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        said = "In JupyterLab a form stands here: choose a picture of your own, press Play, listen."
        return {**super()._repr_mimebundle_(**options), "text/html": f"<p><em>{said}</em></p>", "text/plain": said}

    def _play(self, _: widgets.Button) -> None:
        self.output.outputs = ()
        self.button.disabled = True
        self.bar.layout.visibility = "visible"
        try:
            if not self.upload.value:
                raise InputError("no picture yet: choose one first")
            picture = bytes(self.upload.value[0]["content"])
            track = self._composer.compose(
                picture,
                seconds=self._seconds,
                genre=self.genre.value or None,
                watcher=_Shown(self.output, self.bar, picture),
            )
            self.output.append_display_data(Audio(data=track.files["track.wav"]))  # type: ignore[no-untyped-call]
        except MelodifyError as error:
            self.output.append_stderr(f"{error}\n")
        except Exception:  # what a callback raises is told in the server's log, where nobody looks
            self.output.append_stderr(traceback.format_exc())
        finally:
            self.button.disabled = False
            self.bar.layout.visibility = "hidden"


class _Shown(Watcher):
    """Shows each step when it is done."""

    def __init__(self, output: widgets.Output, bar: widgets.FloatProgress, picture: bytes) -> None:
        self._output, self._bar, self._picture = output, bar, picture

    def begin(self, stage: str) -> None:
        self._bar.description, self._bar.value = _STAGES[stage], 0

    def captioned(self, caption: Caption) -> None:
        self._output.append_display_data(plots.plot_caption(open_image(self._picture), caption))
        self._output.append_stdout(f"{caption.text}\n")

    def described(self, description: MusicDescription) -> None:
        self._output.append_stdout(f"{description.to_prompt()}\n")

    def playing(self, share: float) -> None:
        self._bar.value = share
