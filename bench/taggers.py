"""Does an independent music tagger hear the genre? As a table: `make bench-taggers`.

Descriptions of the test split are played, and four networks that know nothing of Melodify name tags for the files, each
its fifty in order. A track is heard if a tag of its genre is among the first five. Two of them were trained on the
Million Song Dataset's tags, two on MagnaTagATune's; where one has no tag of a genre, it says nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path

from melodify_lib.dataset.form import read
from melodify_lib.music.arranger import Arranger

TAGS: dict[str, set[str]] = {
    "rock": {"rock", "classic rock", "alternative rock", "indie rock", "hard rock", "Progressive rock"},
    "metal": {"metal", "heavy metal"},
    "jazz": {"jazz"},
    "electronic": {"electronic", "electronica", "electro", "House", "techno"},
    "ambient": {"ambient", "new age"},
    "classical": {"classical", "classic"},
    "country": {"country"},
    "disco": {"dance"},  # neither vocabulary has disco itself
}
FIRST = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", type=Path, help="a Python that has musicnn")
    parser.add_argument("--tracks", type=int, default=6, help="of each genre")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    descriptions = defaultdict(list)
    for example in read(Path("data/generate_jsonl/output/test.jsonl")):
        descriptions[example.description.genre].append(example.description)
    arranger = Arranger()
    heard: dict[tuple[str, str], list[bool]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        genres: dict[str, str] = {}
        for genre in TAGS:
            for number, description in enumerate(descriptions[genre][: asked.tracks]):
                file = Path(folder) / f"{genre}-{number}.wav"
                file.write_bytes(arranger.play(description, asked.seconds, asked.seed + number).files["track.wav"])
                genres[str(file)] = genre
        listener = Path(__file__).with_name("tagger_musicnn.py")
        run = subprocess.run([asked.python, listener, *genres], stdout=subprocess.PIPE, text=True, check=True)
    known: dict[str, set[str]] = {}
    for line in run.stdout.splitlines():
        answer = json.loads(line)
        genre = genres[answer["file"]]
        for network, tags in answer["tags"].items():
            known[network] = set(tags)
            heard[genre, network].append(bool(TAGS[genre] & set(tags[:FIRST])))
    networks = list(known)
    print(f"Shares of {asked.tracks} tracks a genre with a tag of it among the first {FIRST}; – where there is none.\n")
    print(f"| genre | {' | '.join(networks)} |\n| --- |{' --- |' * len(networks)}")
    for genre, tags in TAGS.items():
        shares = [
            f"{sum(heard[genre, network]) / len(heard[genre, network]):.2f}" if tags & known[network] else "–"
            for network in networks
        ]
        print(f"| {genre} | {' | '.join(shares)} |")


if __name__ == "__main__":
    main()
