"""The command line, as a process: results on standard output, errors in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from melodify_lib.nouns import MusicDescription, TrackCard

MELODIFY = Path(sys.executable).with_name("melodify")


def melodify(*arguments: object, stdin: str = "", expect: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([MELODIFY, *map(str, arguments)], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == expect, done.stderr
    return done


def test_compose_writes_the_track_and_prints_its_card(photograph: Path, tmp_path: Path) -> None:
    done = melodify("compose", photograph, "--seconds", 6, "--seed", 7, "--out", tmp_path / "song", "--json")
    card = TrackCard.from_json(done.stdout)
    assert {path.name for path in (tmp_path / "song").iterdir()} == {"track.wav", "track.mid", "card.json"}
    replayed = melodify("replay", tmp_path / "song" / "card.json", "--out", tmp_path / "again", "--json")
    assert TrackCard.from_json(replayed.stdout) == card
    assert (tmp_path / "again" / "track.wav").read_bytes() == (tmp_path / "song" / "track.wav").read_bytes()


def test_stages_can_be_piped(photograph: Path, tmp_path: Path) -> None:
    caption = json.loads(melodify("caption", photograph, "--json").stdout)
    answers = melodify("describe", "-", "--json", stdin=f"{caption['text']}\nA storm over a black sea\n").stdout
    descriptions = [MusicDescription.parse(line) for line in answers.splitlines()]
    assert len(descriptions) == 2
    melodify("play", "-", "--seconds", 4, "--out", tmp_path, stdin=descriptions[1].to_json())
    assert (tmp_path / "track.wav").stat().st_size > 4 * 44_100 * 4 * 0.8


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("compose", "missing.jpg"), "missing.jpg"),
        (("compose", __file__), "picture"),
        (("compose", "x.jpg", "--seconds", "1"), "seconds must be"),
        (("compose", "x.jpg", "--genre", "polka"), "polka"),
        (("compose", "x.jpg", "--musician", "kazoo"), "kazoo"),
        (("describe", ""), "empty"),
        (("play", __file__), "not a music description"),
        (("replay", __file__), "not a track card"),
        (("notebooks", "run", "--folder", "."), "no notebooks"),
        (("notebooks", "run", "-p", "nonsense=1", "--folder", "notebooks"), "nonsense"),
        (("notebooks", "run", "--profile", "nowhere"), "nowhere"),
        (("dataset", "build", "--source", "."), "genres.yaml"),
    ],
)
def test_what_is_refused_is_refused_in_one_line(
    arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parent.parent)
    done = melodify(*arguments, expect=1)
    assert done.stdout == ""
    assert done.stderr.startswith("error: ") and said in done.stderr and done.stderr.count("\n") == 1


def test_doctor_finds_a_working_installation() -> None:
    assert "arranger" in melodify("doctor").stdout


@pytest.mark.parametrize("text", ["[/bold] [red]", "\x1b[31mred", "a\u202eb"])
def test_markup_and_control_characters_are_only_text(text: str, tmp_path: Path) -> None:
    done = melodify("compose", tmp_path / f"{text}.jpg".replace("/", ""), expect=1)
    assert done.stderr.startswith("error: no picture at") and "\x1b" not in done.stderr
    done = melodify("describe", f"{text} a cat", "--json")
    assert "\x1b" not in done.stdout


def test_bytes_that_are_not_utf8_are_read_as_far_as_they_go() -> None:
    done = subprocess.run([MELODIFY, "describe", b"\xff a cat", "--json"], capture_output=True, check=True)
    MusicDescription.parse(done.stdout.decode())


def test_captions_that_are_not_utf8_are_named_by_their_line() -> None:
    done = subprocess.run([MELODIFY, "describe", "-"], input=b"a cat\n\xff\xfe\n", capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: line 2 of standard input is not UTF-8") and done.stderr.count(b"\n") == 1


def test_problems_as_json_do_not_steer_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text('{"\u009b31mX\u202e": 1}', encoding="utf-8")
    done = melodify("dataset", "check", path, path, "--no-alike", "--json", expect=1)
    assert done.stdout.isascii()
    assert json.loads(done.stdout.splitlines()[0])["field"] == "\u009b31mX\u202e"
