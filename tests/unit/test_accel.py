# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM is proven by a boot, once for each host and QEMU."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from viotest.campaign import accel as subject
from viotest.campaign.accel import AccelChoice, choose_accel
from viotest.scenario.model import Accel

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def kvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the place of /dev/kvm, and an empty cache."""
    path = tmp_path / "kvm"
    path.touch()
    monkeypatch.setattr(subject, "_KVM", path)
    monkeypatch.setenv("VIOTEST_CACHE", str(tmp_path / "cache"))
    return path


class Proof:
    """A boot under KVM that ends as it is told, and counts."""

    def __init__(self, failure: str = "") -> None:
        self.failure = failure
        self.boots = 0

    def __call__(self) -> str:
        self.boots += 1
        return self.failure


@pytest.mark.parametrize("asked", [Accel.KVM, Accel.TCG])
def test_what_was_asked_for_is_not_proven(asked: Accel) -> None:
    proof = Proof("it would not boot")
    assert choose_accel(asked, proof, "11.1") == AccelChoice(asked, "asked for")
    assert proof.boots == 0


def test_proof_is_remembered() -> None:
    proof = Proof()
    first = choose_accel(Accel.AUTO, proof, "11.1")
    again = choose_accel(Accel.AUTO, proof, "11.1")
    assert first == AccelChoice(Accel.KVM, "KVM booted a guest now")
    assert again == AccelChoice(Accel.KVM, "KVM booted a guest earlier")
    assert proof.boots == 1


def test_failure_is_remembered_with_its_reason() -> None:
    proof = Proof("emulation failure")
    first = choose_accel(Accel.AUTO, proof, "11.1")
    again = choose_accel(Accel.AUTO, proof, "11.1")
    reason = "KVM did not boot, {}: emulation failure"
    assert first == AccelChoice(Accel.TCG, reason.format("now"))
    assert again == AccelChoice(Accel.TCG, reason.format("earlier"))
    assert proof.boots == 1


def test_another_qemu_or_host_is_another_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    proof = Proof()
    choose_accel(Accel.AUTO, proof, "11.1")
    choose_accel(Accel.AUTO, proof, "11.2")
    assert proof.boots == 2
    monkeypatch.setattr(subject, "_host", lambda: ("another",))
    choose_accel(Accel.AUTO, proof, "11.2")
    assert proof.boots == 3


def test_interrupted_proof_is_not_remembered() -> None:
    def interrupted() -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        choose_accel(Accel.AUTO, interrupted, "11.1")
    proof = Proof()
    assert choose_accel(Accel.AUTO, proof, "11.1").chosen is Accel.KVM
    assert proof.boots == 1


def test_nothing_is_started_without_a_proof_to_run() -> None:
    choice = choose_accel(Accel.AUTO, None, "11.1")
    assert choice.chosen is Accel.TCG
    choose_accel(Accel.AUTO, Proof(), "11.1")
    assert choose_accel(Accel.AUTO, None, "11.1").chosen is Accel.KVM


def test_host_without_kvm_says_so(kvm: Path) -> None:
    kvm.unlink()
    choice = choose_accel(Accel.AUTO, Proof(), "11.1")
    assert choice == AccelChoice(Accel.TCG, "no /dev/kvm")


def test_kvm_of_another_user_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    choice = choose_accel(Accel.AUTO, Proof(), "11.1")
    assert choice.chosen is Accel.TCG
    assert "may not be opened by this user" in choice.reason


@pytest.mark.parametrize("text", ["{}", "[]", '{"failure": 3}', '{"failure": null}'])
def test_damaged_memo_is_proven_anew(tmp_path: Path, text: str) -> None:
    choose_accel(Accel.AUTO, Proof(), "11.1")
    [memo] = (tmp_path / "cache" / "kvm").iterdir()
    memo.write_text(text)
    proof = Proof("does not boot")
    assert choose_accel(Accel.AUTO, proof, "11.1").chosen is Accel.TCG
    assert proof.boots == 1
