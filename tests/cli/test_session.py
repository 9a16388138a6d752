"""What a terminal shows while a command runs, and what a pipe does not."""

from __future__ import annotations

import time

import pytest

from cerewrite.cli.session import Session


def shown(capsys: pytest.CaptureFixture[str], **options: bool) -> str:
    session = Session(**options)
    with session.clock("analyse"):
        session.progress(48, 256, 0.123456)
        time.sleep(0.2)  # two refreshes of the display
    session.progress(64, 256, 0.2)  # behind the stage: nothing to update
    return capsys.readouterr().err


def test_a_terminal_shows_draws_and_the_estimate_so_far(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    text = shown(capsys)
    assert "48 of 256 draws, nu about 0.1235, about 1 s left" in text
    assert shown(capsys, quiet=True) == ""


def test_a_pipe_shows_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TTY_COMPATIBLE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    assert shown(capsys) == ""


def test_a_log_names_a_stage_that_lasts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TTY_COMPATIBLE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("cerewrite.cli.session.PATIENCE", 0.01)
    assert shown(capsys) == "computing corrections ...\n"
    assert shown(capsys, quiet=True) == ""
