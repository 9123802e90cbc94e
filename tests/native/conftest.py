"""Small batches are for several threads, too."""

from __future__ import annotations

import pytest

from triton_topk.native import launch


@pytest.fixture(autouse=True)
def short_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_WORK_OF_A_THREAD", 300_000)
