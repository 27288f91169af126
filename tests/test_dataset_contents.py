"""Names, secrets and personal data are found; ordinary captions are let be."""

from __future__ import annotations

import time

import pytest

from melodify_lib.dataset.contents import inspect, unescaped


@pytest.mark.parametrize(
    "text",
    [
        "A choir sings Bach by candlelight.",
        "a piano tune like ludovico einaudi's",
        "Driving riffs in the style of the Doors.",
        "Sounds like Queen on a good day.",
        "A bar band plays Hotel California.",
        "Riffs in the style of Deep Purple.",
        "riffs in the style of deep purple",
        "a voice like Taylor Swift's",
        "A Rolling Stones riff over a beat.",
        "A jukebox that plays New Order.",
        "A choir sings a cover of Jolene.",
        "Funk as in a song by Prince.",
        "It sounds just like Queen.",
        "Guns N’ Roses on the radio",
        "the Stayin’ Alive beat",
        "a bjo\u0308rk voice",
        "a Taylor\u00a0Swift voice",
        "a Taylor \n Swift voice",
        "Cold\u200bplay on the radio",
        "\uff22\uff34\uff33 dances",
        "Daft-Punk robots",
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
        "AKIAIOSFODNN7EXAMPLQ  # pragma: allowlist secret",
        "AKIAIOSFODNN7EXAMPLQ  // pragma: allowlist pragma: whitelist secret secret",
        "AKIA\u200bIOSFODNN7EXAMPLQ",
        "GOCSPX-" + "AbCd0123" * 3,
        "1//0g" + "AbCd0123" * 5,
        "github_pat_11" + "AbCd0123" * 5,
        "hf_" + "aB1c" * 8,
        "gsk_" + "aB1c" * 12,
        "xai-" + "aB1c" * 12,
        "pplx-" + "aB1c" * 12,
        "r8_" + "aB1c" * 9,
        "nvapi-" + "aB1c" * 15,
        "dop_v1_" + "a1b2c3d4" * 8,
        "shpat_" + "a1b2c3d4" * 4,
        "hvs.CAES" + "aB1c" * 12,
        "dapi" + "a1b2c3d4" * 4,
        "glsa_" + "aB1c" * 8 + "_a1b2c3d4",
        "dckr_pat_" + "aB1c" * 6,
        "lin_api_" + "aB1c" * 10,
        "npm_" + "aB1c" * 9,
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
        ("de89370400440532013000 in the grass", "bank account"),
        ("at61 1904 3002 3457 3201 card", "bank account"),
        ("4111.1111.1111.1111", "card"),
        ("3782 822463 10005", "card"),
        ("078-05-1120 on a form", "social security"),
        ("SSN: 078 05 1120", "social security"),
        ("call 020 7946 0958", "telephone"),
        ("call 07911 123456 now", "telephone"),
        ("Ruf 030 1234567 an", "telephone"),
        ("0171 2345678", "telephone"),
        ("06 12 34 56 78", "telephone"),
        ("01.42.68.53.00", "telephone"),
        ("010-1234-5678", "telephone"),
        ("02-312-3456", "telephone"),
        ("03-3581-1234", "telephone"),
        ("090-1234-5678", "telephone"),
        ("\uff10\uff16 12 34 56 78", "telephone"),
        ("j\u00f6rg@m\u00fcller.de", "e-mail"),
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
        "A deep purple sky over a new order of rolling stones on a green day.",
        "Deep purple sky. Rolling stones gather no moss, to the sound of rolling stones.",
        "Two beach boys carry surfboards through muddy waters; Tom waits; nine inch nails in a box.",
        "Grateful dead leaves, a massive attack of crows, an iron maiden in the museum, a bach by the sea.",
        "Superstition keeps the black cat out. A woman named Jolene waits.",
        "A bachelor, a wagnerian sky, red hot chili peppers in a bowl, a bad bunny, inspired by a green day.",
        "A steady-state sk-etch, the hf_ and npm_ prefixes, dapi, version 1//0.",
        "Doors open 08.30, 10.45 and 12.00; 08:30 10:45 12:00; 0600 0700 hours; 00:01:23 00:02:34.",
        "On 01.02.2019, 01-02-2019, 02/03/2019 14.15, from 06.07.2012 to 08.09.2013, 05/06 07/08 1999.",
        "Built 1987-2003, 120 000 visitors; Nos. 01-24, 2019-2020; 007 1962 1995; 2012-2015.",
        "It ends 0-0 after 01 02 03 04 05 06 07; $1 299.99, 0.12345678, EUR 1.234.567,00, 0 1 2 3 4 5 6 7 8 9.",
        "Resistors 0402 0603 0805 1206, pi 3.14159265358979, at 051.5074 000.1278, 0123456789.",
        "Rows 123-45, no12 this road leads past nine old oaks.",
        "",
    ],
)
def test_ordinary_words_are_let_be(text: str) -> None:
    assert list(inspect(text)) == []


def test_all_of_a_long_text_is_looked_at() -> None:
    assert [what for what, _ in inspect("lake " * 4_100 + "joe@x.org")] == ["holds personal data (an e-mail address)"]
    for before in range(4_970, 5_030):
        text = ("lake " * 2_000)[:before] + " Taylor Swift " + "lake " * 2_000
        assert list(inspect(text)), before
    assert not list(inspect("a bachelor Bachelor " * 3_000))


@pytest.mark.parametrize("text", ["a" * 20_000, "1" * 20_000, "eyJ." * 5_000, "xoxb-" * 4_000, "0171 2345" * 2_000])
def test_no_text_takes_long(text: str) -> None:
    started = time.process_time()
    list(inspect(text))
    assert time.process_time() - started < 2


def test_half_a_surrogate_is_no_obstacle() -> None:
    assert not list(inspect("half \ud800 pair"))
    assert list(inspect("password = 'hunter2\ud800hunter2', joe@x.org"))


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (r"Bj\u00f6rk", "Bj\u00f6rk"),
        (r"joe\u0040x.org", "joe@x.org"),
        (r"\ud83d\ude00", "\U0001f600"),
        (r"\\u0040", r"\u0040"),
        (r"a\nb\"c", 'a\nb"c'),
        ("\\", "\\"),
    ],
)
def test_escapes_are_undone(text: str, plain: str) -> None:
    assert unescaped(text) == plain
