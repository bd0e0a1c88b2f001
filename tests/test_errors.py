from __future__ import annotations

from evalkit.errors import first_few


def test_a_few_names_are_all_said() -> None:
    assert first_few(["a", "b"], 2) == "a, b"
    assert first_few([]) == ""


def test_of_many_names_the_first_are_said_and_the_others_counted() -> None:
    assert first_few([str(number) for number in range(500)], 2) == "0, 1 and 498 more"
