"""Settings and stages: defaults by profile, single choices on top, clear refusals."""

import subprocess
import sys

import pytest

from melodify_lib import stages
from melodify_lib.errors import SettingsError
from melodify_lib.settings import Settings


def test_the_local_profile_needs_nothing() -> None:
    settings = Settings.load()
    assert (settings.captioner, settings.describer, settings.musician) == ("local", "local", "arranger")


def test_environment_and_arguments_choose_single_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELODIFY_MUSICIAN", "other")
    assert Settings.load().musician == "other"
    assert Settings.load(musician="arranger").musician == "arranger"
    assert Settings.load(musician=None).musician == "other"


def test_unknown_names_are_refused_with_the_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="arranger"):
        stages.musician(Settings.load(musician="kazoo"))
    monkeypatch.setenv("MELODIFY_PROFILE", "nowhere")
    with pytest.raises(SettingsError, match=r"nowhere.*local"):
        Settings.load()


def test_a_misspelt_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELODIFY_MUSICAN", "arranger")
    with pytest.raises(SettingsError, match="MELODIFY_MUSICAN"):
        Settings.load()


def test_settings_cannot_change_underneath() -> None:
    with pytest.raises(Exception, match="frozen"):
        Settings.load().musician = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    "module",
    ["", ".cli", ".flow", ".caption.local", ".describe.local", ".music.arranger", ".music.finish", ".notebooks"],
)
def test_imports_are_light(module: str) -> None:
    heavy = {"torch", "transformers", "scipy", "symusic", "pedalboard", "kfp", "papermill", "pandas", "matplotlib"}
    code = f"import sys, melodify_lib{module}; print(*({heavy!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
