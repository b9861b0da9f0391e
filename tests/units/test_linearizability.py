"""The checker of histories: what it lets pass and what not, and that it agrees with trying every order."""

import itertools
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from linearizability import CHANGES, READS, Operation, Refuted, refuted


def created(asked, answered, value, version):
    return Operation("create", asked, answered, value, code=201, version=version, found=value)


def replaced(asked, answered, value, version, expects=""):
    return Operation("replace", asked, answered, value, expects, 200, version, value)


def got(asked, answered, value, version):
    return Operation("get", asked, answered, code=200, version=version, found=value)


def refused(verb, asked, answered, code, value="", expects=""):
    return Operation(verb, asked, answered, value, expects, code)


def unanswered(verb, asked, value="", expects=""):
    return Operation(verb, asked, None, value, expects)


MADE = created(1, 2, "a", "1")


def test_one_after_another_passes():
    assert not refuted(
        [
            refused("get", 0, 1, 404),
            created(2, 3, "a", "5"),
            refused("create", 4, 5, 409, "b"),
            got(6, 7, "a", "5"),
            replaced(8, 9, "c", "7", expects="5"),
            refused("patch", 10, 11, 409, "d", expects="5"),
            Operation("apply", 12, 13, "e", code=200, version="9", found="e"),
            Operation("delete", 14, 15, code=200),
            refused("delete", 16, 17, 404),
            Operation("apply", 18, 19, "f", code=201, version="12", found="f"),
        ]
    )


def test_a_read_of_what_was_before_passes_only_as_long_as_the_write_is_not_answered():
    assert not refuted([MADE, replaced(3, 6, "b", "2"), got(4, 5, "a", "1")])
    stale = refuted([MADE, replaced(3, 4, "b", "2"), got(5, 6, "a", "1")])
    assert stale is not None
    assert stale.left == [got(5, 6, "a", "1")]
    assert "[5-6] get: 200 a@1" in str(stale)


def test_who_has_read_a_write_is_not_told_later_that_it_was_not_there():
    write = replaced(3, 9, "b", "2")
    assert not refuted([MADE, write, got(4, 5, "a", "1"), got(6, 7, "b", "2")])
    assert refuted([MADE, write, got(4, 5, "b", "2"), got(6, 7, "a", "1")])


def test_of_two_writers_who_expect_the_same_one_wins():
    one = replaced(3, 6, "b", "2", expects="1")
    assert not refuted([MADE, one, refused("replace", 4, 5, 409, "c", expects="1")])
    assert refuted([MADE, one, replaced(4, 5, "c", "3", expects="1")])
    assert refuted([MADE, refused("replace", 4, 5, 409, "c", expects="1")])


def test_of_two_creations_one_wins():
    assert refuted([created(1, 4, "a", "1"), created(2, 3, "b", "2")])
    assert not refuted([created(1, 4, "a", "1"), refused("create", 2, 3, 409, "b")])
    assert refuted([refused("create", 2, 3, 409, "b")])


def test_a_write_that_was_answered_is_not_lost():
    assert refuted([MADE, refused("get", 3, 4, 404)])
    assert refuted([MADE, replaced(3, 4, "b", "2"), refused("get", 5, 6, 404)])


def test_what_was_deleted_does_not_come_back():
    gone = Operation("delete", 3, 4, code=200)
    assert not refuted([MADE, gone, refused("get", 5, 6, 404)])
    assert refuted([MADE, gone, got(5, 6, "a", "1")])


def test_a_write_without_an_answer_may_have_happened_late_or_never():
    cut = unanswered("patch", 3, "b")
    assert not refuted([MADE, cut, got(4, 5, "a", "1"), got(6, 7, "b", "2")])
    assert not refuted([MADE, cut, got(4, 5, "a", "1"), got(6, 7, "a", "1")])
    assert refuted([MADE, cut, got(4, 5, "b", "2"), got(6, 7, "a", "1")])
    assert refuted([MADE, got(1, 2, "b", "2"), replace(cut, asked=3)])  # not before it was asked
    assert refuted([MADE, unanswered("patch", 3, "b", expects="9"), got(4, 5, "b", "2")])
    assert not refuted([MADE, unanswered("delete", 3), refused("get", 4, 5, 404)])
    assert not refuted([MADE, unanswered("get", 3)])


def test_versions_rise_and_stand_for_one_value():
    assert refuted([created(1, 2, "a", "5"), replaced(3, 4, "b", "4")])
    assert refuted([MADE, got(3, 4, "a", "2")])
    assert refuted([MADE, replaced(3, 4, "b", "1")])
    # Not even when it was gone in between.
    assert refuted([created(1, 2, "a", "5"), Operation("delete", 3, 4, code=200), created(5, 6, "b", "3")])


def test_an_answer_shows_what_was_written():
    assert refuted([MADE, Operation("patch", 3, 4, "b", code=200, version="2", found="c")])


def test_nothing_that_was_asked_is_nothing_wrong():
    assert refuted([]) is None


class _Register:
    """The object, told in another way: what it answers when it is asked, one after another."""

    def __init__(self):
        self.value, self.version, self.counter = None, "", 0

    def answer(self, verb, value, expects):
        if verb == "create" and self.value is not None:
            return 409, "", ""
        if verb not in ("create", "apply") and self.value is None:
            return 404, "", ""
        if expects and self.value is not None and expects != self.version:
            return 409, "", ""
        if verb == "get":
            return 200, self.version, self.value
        self.counter += 1
        code = 201 if self.value is None else 200
        if verb == "delete":
            self.value, self.version = None, ""
            return 200, "", ""
        self.value, self.version = value, str(self.counter)
        return code, self.version, value


VERBS = ("get", "create", "apply", "delete", *CHANGES)


@st.composite
def histories(draw, most):
    """What a register answers to some clients, each of whom asks one thing after another."""
    register, clock, busy, history = _Register(), itertools.count(1), {}, []
    for number in range(draw(st.integers(1, most))):
        client = draw(st.integers(0, 3))
        stage = busy.get(client)
        if stage is None:
            verb = draw(st.sampled_from(VERBS))
            known = ["", *(each.version for each in history if each.version)]  # by an answer
            expects = draw(st.sampled_from(known)) if verb in (*CHANGES, "delete") else ""
            value = "" if verb in ("get", "delete") else f"v{number}"
            busy[client] = Operation(verb, next(clock), None, value, expects)
        elif not stage.code:
            code, version, found = register.answer(stage.verb, stage.value, stage.expects)
            busy[client] = replace(stage, code=code, version=version, found=found)
        else:
            history.append(replace(stage, answered=next(clock)))
            del busy[client]
    # Whose answer was lost shows none of it.
    history += [Operation(each.verb, each.asked, None, each.value, each.expects) for each in busy.values()]
    return history


@given(histories(most=80))
def test_whatever_one_register_answers_passes(history):
    assert refuted(history) is None


@given(histories(most=16), st.data())
def test_it_agrees_with_trying_every_order(history, data):
    # One answer is another's, or comes at another time: most such histories are none, some are.
    answered = [at for at, each in enumerate(history) if each.answered is not None]
    if answered:
        at = data.draw(st.sampled_from(answered))
        other = history[data.draw(st.sampled_from(answered))]
        asked = data.draw(st.integers(0, history[at].asked))
        history[at] = replace(
            history[at], asked=asked, code=other.code, version=other.version, found=other.found
        )
    assert (refuted(history) is None) == any(map(_is_answered_so, _orders(history)))


def _orders(history):
    """Every order that keeps to who was answered before whom was asked, with any of those without answer."""
    sure = [each for each in history if each.answered is not None]
    unsure = [each for each in history if each.answered is None and each.verb not in READS]
    for count in range(len(unsure) + 1):
        for some in itertools.combinations(unsure, count):
            yield from _in_time([*sure, *some])


def _in_time(operations):
    if not operations:
        yield []
    for each in operations:
        if all(each.asked <= (other.answered or each.asked) for other in operations if other is not each):
            for rest in _in_time([other for other in operations if other is not each]):
                yield [each, *rest]


def _is_answered_so(order):
    """Whether a register answers so; its versions are those that were answered."""
    told = {each.found: each.version for each in order if each.version}
    value, newest = None, 0
    for each in order:
        code = _code(each, value, told.get(value, ""))
        shown = each.value or value if each.verb != "delete" and code < 300 else ""
        if each.answered is not None and (each.code, each.found) != (code, shown):
            return False
        if each.version != (told.get(shown, "") if each.answered is not None else ""):
            return False
        if code < 300 and each.verb not in READS:
            value = None if each.verb == "delete" else each.value
            if value in told and int(told[value]) <= newest:
                return False
            newest = int(told.get(value, newest))
    return True


def _code(each, value, version):
    if each.verb == "create":
        return 409 if value else 201
    if not value:
        return 201 if each.verb == "apply" else 404
    return 409 if each.expects not in ("", version) else 200


def test_a_refusal_names_what_contradicts_itself():
    found = refuted([MADE, got(3, 4, "a", "2")])
    assert isinstance(found, Refuted)
    assert found.left == [MADE, got(3, 4, "a", "2")]
