"""The allocator call: what it asks of glibc, where it does nothing, and that it saves page faults."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

from sharp_maml.allocator import keep_freed_memory

ON_GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")


class Library:
    """A libc that notes what it is asked for."""

    gnu_get_libc_version = None

    def __init__(self, answer: int = 1) -> None:
        self.asked: dict[int, int] = {}
        self.answer = answer

    def mallopt(self, name: int, value: int) -> int:
        self.asked[name] = value
        return self.answer


def test_it_asks_glibc_to_keep_what_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.delenv("SHARP_MAML_MALLOPT", raising=False)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    assert keep_freed_memory()
    assert library.asked == {-8: 1, -4: 0, -1: 2**31 - 1, -2: 64 * 2**20}
    library.answer = 0
    assert not keep_freed_memory()


def test_the_environment_switches_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setenv("SHARP_MAML_MALLOPT", "0")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    assert not keep_freed_memory()
    assert library.asked == {}


@pytest.mark.parametrize("error", [OSError, TypeError])
def test_it_does_nothing_where_there_is_no_handle_of_the_process(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def refuse(_: None) -> None:
        raise error

    monkeypatch.delenv("SHARP_MAML_MALLOPT", raising=False)
    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert not keep_freed_memory()


def test_it_does_nothing_where_the_library_is_not_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHARP_MAML_MALLOPT", raising=False)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not keep_freed_memory()


@pytest.mark.slow
@ON_GLIBC
def test_large_blocks_cost_no_more_page_faults_once_it_is_called() -> None:
    program = """
import resource, sys, torch
from sharp_maml.allocator import keep_freed_memory
assert keep_freed_memory() == (sys.argv[1] == "1")
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(30):  # the heap grows a few times before every block finds a freed one
    torch.ones(2**24)
start = faults()
for _ in range(10):
    torch.ones(2**24)
print(faults() - start)
"""

    def faults(setting: str) -> int:
        command = [sys.executable, "-c", program, setting]
        return int(subprocess.run(command, env={"SHARP_MAML_MALLOPT": setting}, capture_output=True, check=True).stdout)

    assert faults("1") * 10 < faults("0")
