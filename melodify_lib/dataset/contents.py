"""What no example may hold: names of artists and songs, secrets, and personal data.

Secrets are found by detect-secrets (Yelp) and a few keys that it does not know; telephone numbers
by phonenumbers (Google's libphonenumber). Names come from ``forbidden.yaml``: a list is never whole,
so a clean file is not proof.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from melodify_lib.tables import read_yaml

_PLUGINS = (
    "ArtifactoryDetector", "AWSKeyDetector", "AzureStorageKeyDetector", "BasicAuthDetector", "CloudantDetector",
    "DiscordBotTokenDetector", "GitHubTokenDetector", "GitLabTokenDetector", "JwtTokenDetector", "KeywordDetector",
    "MailchimpDetector", "NpmDetector", "OpenAIDetector", "PrivateKeyDetector", "PypiTokenDetector",
    "SendGridDetector", "SlackDetector", "SquareOAuthDetector", "StripeDetector", "TelegramBotTokenDetector",
    "TwilioKeyDetector",
)  # fmt: skip
"""All of detect-secrets but those that go by entropy alone: prose has long words too."""

_KEYS = re.compile(r"\b(?:AIza[\w-]{35}|ya29\.[\w-]{20,}|sk-[\w-]{20,}|hf_[A-Za-z]{20,})")
_MAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]*\w")
_CARD = re.compile(r"\b\d(?:[ -]?\d){12,18}\b")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,4})?\b")
_LONGEST = 20_000  # characters of a text that are looked at

Found = tuple[str, str]
"""(what was found, how to mend it)"""


def inspect(text: str) -> Iterator[Found]:
    """What is in `text` that should not be; secrets are named by kind and never repeated."""
    text = text[:_LONGEST]
    for name in dict.fromkeys(match[0] for match in _names().finditer(text)):
        yield f"names an artist or a song: {name!r}", "say what the music is like, not whose it is"
    for kind in _secrets(text):
        yield f"holds what looks like a secret ({kind})", "delete it, and change it where it is used"
    for kind in _personal(text):
        yield f"holds personal data ({kind})", "delete it, or invent another scene"


def _secrets(text: str) -> list[str]:
    from detect_secrets.core.scan import scan_line
    from detect_secrets.settings import get_settings

    settings = get_settings()
    if set(settings.plugins) != set(_PLUGINS):
        settings.clear()
        settings.configure_plugins([{"name": name} for name in _PLUGINS])
    kinds = {found.type for line in text.splitlines() for found in scan_line(line)}
    return sorted(kinds | ({"API key"} if _KEYS.search(text) else set()))


def _personal(text: str) -> Iterator[str]:
    import phonenumbers

    if _MAIL.search(text):
        yield "an e-mail address"
    if any(_luhn(match[0]) for match in _CARD.finditer(text)):
        yield "a card number"
    elif any(_mod97(match[0]) for match in _IBAN.finditer(text)):
        yield "a bank account"
    elif any(character.isdigit() for character in text) and (
        phonenumbers.PhoneNumberMatcher(text, None).has_next() or phonenumbers.PhoneNumberMatcher(text, "US").has_next()
    ):
        yield "a telephone number"


def _luhn(number: str) -> bool:
    digits = [int(digit) for digit in number if digit.isdigit()][::-1]
    return sum(digits[::2]) % 10 == -sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2]) % 10


def _mod97(account: str) -> bool:
    text = account.replace(" ", "")
    return int("".join(str(int(letter, 36)) for letter in text[4:] + text[:4])) % 97 == 1


@cache
def _names() -> re.Pattern[str]:
    table: Any = read_yaml(Path(__file__).with_name("forbidden.yaml"))

    def either(rows: list[str]) -> str:
        names = [name.strip() for row in rows for name in row.split(", ")]
        return "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))

    phrases = "|".join(re.escape(phrase) for phrase in table["phrases"])
    artists, songs, ambiguous = (either(table[kind]) for kind in ("names", "songs", "ambiguous"))
    # Titles are common phrases but for their capitals; so are ambiguous names, after any phrase.
    return re.compile(rf"(?<!\w)(?:(?i:{artists})|{songs}|(?i:{phrases}) (?:(?i:the) )?(?:{ambiguous}))(?!\w)")
