"""How prompts are grouped by their beginnings."""

from luthier.infer.prefixes import Group, alone, common_prefix, groups


def test_common_prefix_counts_equal_leading_tokens() -> None:
    assert common_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert common_prefix([1, 2], [1, 2, 4]) == 2
    assert common_prefix([], [1]) == 0


def test_one_group_shares_what_all_share_shortest_first() -> None:
    assert groups([[1, 2, 3, 9, 9], [1, 2, 4], [1, 2, 5, 6]]) == [Group(2, (1, 2, 0))]


def test_every_prompt_keeps_a_token_of_its_own() -> None:
    assert groups([[1, 2], [1, 2], [1, 2, 3]]) == [Group(1, (0, 1, 2))]


def test_one_prompt_shares_nothing() -> None:
    assert groups([[1, 2, 3]]) == [Group(0, (0,))]
    assert groups([]) == []


def test_many_questions_about_each_document_are_a_group_per_document() -> None:
    first, second = [1, *range(100, 200)], [1, *range(200, 300)]
    prompts = [[*first, 5], [*second, 5, 6], [*first, 6], [1, 7], [*second, 7]]
    assert groups(prompts, worthwhile=50) == [Group(1, (3,)), Group(101, (0, 2)), Group(101, (4, 1))]
    assert groups(prompts, worthwhile=101) == [Group(1, (3, 0, 2, 4, 1))]


def test_alone_shares_nothing() -> None:
    assert alone([[1, 2, 3], [1, 2]]) == Group(0, (1, 0))
