"""What the ranks of a local run are told of their places."""

from launcher.rank_environment import rank_environments, trainer_names


def test_one_trainer_is_told_nothing() -> None:
    """It is alone, as ever."""
    assert rank_environments(trainer_names(1)) == {"trainer": {}}


def test_ranks_meet_at_one_port_of_loopback() -> None:
    """Each under its own number."""
    places = rank_environments(trainer_names(3))
    assert list(places) == ["trainer", "trainer-1", "trainer-2"]
    assert [place["RANK"] for place in places.values()] == ["0", "1", "2"]
    assert [place["LOCAL_RANK"] for place in places.values()] == ["0", "1", "2"]
    assert {place["WORLD_SIZE"] for place in places.values()} == {"3"}
    assert {place["MASTER_ADDR"] for place in places.values()} == {"127.0.0.1"}
    [port] = {place["MASTER_PORT"] for place in places.values()}
    assert 0 < int(port) < 65536
