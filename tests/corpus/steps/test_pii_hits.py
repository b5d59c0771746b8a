from luthier.corpus.steps.pii_hits import KINDS, Hit, without_overlaps


def test_the_kind_that_stands_first_wins_and_the_order_is_that_of_the_text():
    phone, password = Hit(5, 16, "phone", "a"), Hit(0, 20, "password", "b")
    email = Hit(30, 40, "email", "c")
    assert without_overlaps([email, phone, password]) == [password, email]


def test_hits_that_only_touch_both_stay():
    hits = [Hit(0, 5, "email", "a"), Hit(5, 9, "email", "b")]
    assert without_overlaps(hits[::-1]) == hits


def test_of_one_kind_the_longer_wins():
    short, long = Hit(0, 5, "phone", "a"), Hit(0, 9, "phone", "b")
    assert without_overlaps([short, long]) == [long]


def test_repr_hides_the_value():
    assert "secret" not in repr(Hit(0, 6, "password", "secret"))


def test_kinds_are_unique():
    assert len(set(KINDS)) == len(KINDS) == 10


def test_a_hit_between_two_others_stays_only_if_it_is_clear_of_both():
    outer = [Hit(0, 5, "email", "a"), Hit(10, 15, "email", "b")]
    assert without_overlaps([*outer, Hit(5, 10, "phone", "c")])[1].kind == "phone"
    assert without_overlaps([*outer, Hit(5, 11, "phone", "c")]) == outer
    assert without_overlaps([*outer, Hit(4, 10, "phone", "c")]) == outer
