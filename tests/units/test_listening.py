"""When what is heard was said: clocks of other machines are behind, ahead, or set anew."""

import pytest

from transom.hub.contexts.beats import Beats
from transom.hub.listening import Hearing
from transom.model.roads import GatewayBeat
from transom.runtime.clock import ManualClock

PERIOD = 2.0


def beat(**more):
    return GatewayBeat("eu", "one", "now", **{"ready": True, **more})


def told_for(beats, clock, seconds, behind):
    """The gateway beats for so long, by a clock that is so far behind."""
    until = clock.monotonic() + seconds
    while clock.monotonic() < until:
        clock.advance(PERIOD)
        beats.hear(beat(), clock.wall() - behind)


@pytest.mark.parametrize("behind", [30.0, 7200.0, -30.0, -7200.0])
def test_a_gateway_whose_clock_is_wrong_is_there_all_the_same_and_its_clock_is_told_of(behind):
    clock = ManualClock()
    beats = Beats("eu", clock)
    told_for(beats, clock, 3 * PERIOD, behind)
    assert [each.gateway for each in beats.lately()] == ["one"]
    way = "behind" if behind > 0 else "ahead of"
    assert beats.problems() == {"gateway one": f"its clock is {abs(behind):.0f} s {way} the hub's"}
    (described,) = beats.described()
    assert described["heardSecondsAgo"] == 0.0
    clock.advance(20)
    assert beats.lately() == []
    assert "silent since" in beats.problems()["gateway one"]


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_a_clock_that_is_set_anew_makes_nobody_silent(step):
    clock = ManualClock()
    beats = Beats("eu", clock)
    told_for(beats, clock, 5 * PERIOD, 0.0)
    told_for(beats, clock, 3 * PERIOD, step)
    assert beats.lately()
    told_for(beats, clock, 3 * PERIOD, 0.0)
    assert beats.lately()
    assert beats.problems() == {}


def test_what_waited_while_the_link_was_cut_is_as_old_as_it_says_by_whatever_clock():
    for behind in (0.0, 300.0):
        clock = ManualClock()
        hearing = Hearing(clock)
        for _ in range(5):
            clock.advance(PERIOD)
            hearing.said_at("one", clock.wall() - behind)
        cut = clock.wall()
        clock.advance(600)
        for number in range(1, 10):
            said = hearing.said_at("one", cut - behind + number * PERIOD)
            assert clock.monotonic() - said == pytest.approx(600 - number * PERIOD)


def test_what_stood_in_the_log_before_is_as_old_as_it_says():
    clock = ManualClock()
    hearing = Hearing(clock)
    for number in range(5, 0, -1):
        assert hearing.said_at("one", clock.wall() - 100 * number) == pytest.approx(-100 * number)


def test_a_storm_of_words_hides_no_clock():
    clock = ManualClock()
    hearing = Hearing(clock)
    said = 0.0
    for _ in range(20):
        clock.advance(0.25)
        said = hearing.said_at("one", clock.wall() - 3600)
    assert clock.monotonic() - said == 0.0
    assert hearing.behind("one") == 3600


def test_only_so_many_speakers_are_remembered():
    clock = ManualClock()
    hearing = Hearing(clock)
    for number in range(1000):
        hearing.said_at(f"gateway-{number}", clock.wall())
    assert len(hearing._words) == 256
