"""Names, secrets and personal data are found; ordinary captions are let be."""

from __future__ import annotations

import pytest

from melodify_lib.dataset.contents import inspect


@pytest.mark.parametrize(
    "text",
    [
        "A choir sings Bach by candlelight.",
        "a piano tune like ludovico einaudi's",
        "Driving riffs in the style of the Doors.",
        "Sounds like Queen on a good day.",
        "A bar band plays Hotel California.",
    ],
)
def test_artists_and_songs_are_named(text: str) -> None:
    assert [what for what, _ in inspect(text) if what.startswith("names an artist or a song")]


@pytest.mark.parametrize(
    "secret",
    [
        "AKIAIOSFODNN7EXAMPLE",
        "AIzaSyA1234567890abcdefghijklmnopqrstuvw",
        "sk-proj-abc123abc123abc123T3BlbkFJabc123abc123",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "-----BEGIN RSA PRIVATE KEY-----",
        "password = 'hunter2hunter2'",
    ],
)
def test_secrets_are_found_and_not_repeated(secret: str) -> None:
    found = list(inspect(f"A note on a desk: {secret}"))
    assert found
    assert not any(secret in what + fix for what, fix in found)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to anna@example.com", "e-mail"),
        ("call +49 170 1234567", "telephone"),
        ("(212) 555-2368 on a taxi door", "telephone"),
        ("4111 1111 1111 1111", "card"),
        ("DE89 3704 0044 0532 0130 00", "bank account"),
    ],
)
def test_personal_data_is_found(text: str, kind: str) -> None:
    assert any(kind in what for what, _ in inspect(text))


@pytest.mark.parametrize(
    "text",
    [
        "Two doors, a queen of hearts and the police on the corner of a train station.",
        "An oasis in the desert; the heart of Chicago; a kiss under the cream-coloured arch.",
        "In 1973, three of 12 chairs stand at 10:45, 35 mm, f/1.8, 2019-10-12.",
        "The password is taped to the monitor.",
        "4 of 20 houses, numbers 1234 to 5678, room 101.",
        "",
    ],
)
def test_ordinary_words_are_let_be(text: str) -> None:
    assert list(inspect(text)) == []
