"""The twenty genres, named exactly so everywhere."""

from typing import Literal, get_args

Genre = Literal[
    "pop", "hip-hop", "rock", "jazz", "classical", "electronic", "r&b", "country", "blues", "folk",
    "reggae", "metal", "funk", "soul", "disco", "latin", "ambient", "lo-fi", "k-pop", "cinematic",
]  # fmt: skip
GENRES: tuple[str, ...] = get_args(Genre)
