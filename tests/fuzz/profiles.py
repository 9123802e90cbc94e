"""CI tries the same few cases every time, --hypothesis-profile=nightly twenty times as many new ones."""

from __future__ import annotations

from hypothesis import settings

_NIGHTLY_FACTOR = 20


def examples(number: int) -> settings:
    if settings.get_current_profile_name() == "nightly":
        return settings(max_examples=_NIGHTLY_FACTOR * number, deadline=None, print_blob=True)
    return settings(max_examples=number, deadline=None, derandomize=True)
