"""The pure plan: whatever order things come in, the rows end up as if they had been built at once."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from hub_contexts_parts import GateContext, gate, tenant
from transom.hub.contexts.planning import Cause, Subject, in_lanes, large_causes, make, plan
from transom.hub.contexts.row import BULK, FAST, Row, Told, region_names, regions_text, told
from transom.model.contexts import EVERYWHERE
from transom.model.names import Key

DECLARED = frozenset({"ap", "eu", "us"})
KINDS = (GateContext(),)
BECAUSE = Cause("subject", "test")


class Model:
    """Resources, and rows kept up to date by plans."""

    def __init__(self) -> None:
        self.resources = {}
        self.tenants = {"acme": tenant()}
        self.rows: dict[str, Row] = {}
        self.revision = 0

    def look_at(self, *keys: Key) -> None:
        subjects = [Subject(key, self.resources.get(key), BECAUSE) for key in keys]
        made, _ = make(KINDS, subjects, self.tenants)
        names, wanted = {str(key) for key in keys}, {each.key for each in made}
        held = [row for row in self.rows.values() if row.subject in names or row.key in wanted]
        for draft in plan(subjects, made, held, DECLARED).drafts:
            self.revision += 1
            self.rows[draft.row.key] = draft.row._replace(
                revision=self.revision, added=draft.row.added or self.revision
            )

    def live(self):
        return {
            row.key: (row.value, row.regions, row.subject) for row in self.rows.values() if not row.deleted
        }


def model_of(*resources) -> Model:
    model = Model()
    for resource in resources:
        model.resources[resource.key] = resource
    model.look_at(*model.resources)
    return model


regions = st.none() | st.sets(st.sampled_from(sorted(DECLARED)), min_size=1).map(sorted)
specs = st.fixed_dictionaries(
    {"value": st.sampled_from(["v", "w", "broken", "stumble"]), "regions": regions},
    optional={"shut": st.booleans()},
)
steps = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.none() | specs, st.booleans()), min_size=1, max_size=12
)


@settings(max_examples=150)
@given(steps)
def test_built_step_by_step_is_what_is_built_at_once(changes):
    model = Model()
    good = {}  # what each subject last gave that was good
    for name, spec, look in changes:
        key = gate(name).key
        if spec is None:
            model.resources.pop(key, None)
            good.pop(key, None)
        else:
            model.resources[key] = gate(name, **spec)
        if look:
            model.look_at(key)
            if spec is not None and spec["value"] in ("v", "w"):
                good[key] = model.resources[key]
    model.look_at(*(gate(name).key for name in "abc"))
    good |= {key: each for key, each in model.resources.items() if each.spec["value"] in ("v", "w")}
    # A subject that went and came back bad between two looks keeps what it had: nothing said "delete".
    expected = model_of(*good.values()).live()
    live = model.live()
    assert expected.items() <= live.items()
    assert {row[2] for row in live.values()} <= {str(key) for key in model.resources}
    # Planned again, there is nothing to do.
    revision = model.revision
    model.look_at(*(gate(name).key for name in "abc"))
    assert model.revision == revision


@settings(max_examples=150)
@given(steps)
def test_a_region_that_was_told_a_value_is_told_of_its_end(changes):
    """Each region reads some of the rows' versions, and the last one; it must end with what is for it."""
    model = Model()
    tables = {region: {} for region in DECLARED}
    for name, spec, reads in changes:
        key = gate(name).key
        if spec is None:
            model.resources.pop(key, None)
        else:
            model.resources[key] = gate(name, **spec)
        model.look_at(key)
        if reads:
            read(model, tables)
    read(model, tables)
    for region, table in tables.items():
        for row in model.rows.values():
            wanted = told(row, region) is Told.VALUE
            assert (table.get(row.key) == row.value) if wanted else row.key not in table


def read(model, tables):
    for region, table in tables.items():
        for row in model.rows.values():
            what = told(row, region)
            if what is Told.VALUE:
                table[row.key] = row.value
            elif what is Told.MARKER:
                table.pop(row.key, None)


def test_regions_it_is_not_for_any_more_keep_it_for_now():
    model = model_of(gate("g"))
    key = gate("g").key
    model.resources[key] = gate("g", regions=["eu"])
    model.look_at(key)
    row = model.rows["gate/acme/g"]
    assert (row.regions, row.leaving) == (",eu,", ",ap,us,")
    model.resources[key] = gate("g", regions=["eu", "us"])
    model.look_at(key)
    row = model.rows["gate/acme/g"]
    assert (row.regions, row.leaving, row.former) == (",eu,us,", ",ap,", "")


def test_a_context_that_comes_back_elsewhere_still_takes_the_old_one_away():
    model = model_of(gate("g", regions=["eu"]))
    key = gate("g").key
    del model.resources[key]
    model.look_at(key)
    model.resources[key] = gate("g", regions=["us"])
    model.look_at(key)
    row = model.rows["gate/acme/g"]
    assert told(row, "eu") is Told.MARKER
    assert told(row, "us") is Told.VALUE
    assert told(row, "ap") is None


def test_keys_that_no_region_could_look_up_are_refused():
    kinds = (GateContext(),)
    for key in ("x" * 600, "a\nb"):
        subject = Subject(gate("g").key, gate("g", key=key), BECAUSE)
        made, refused = make(kinds, [subject], {})
        assert not made
        assert refused[0].guard == "schema"


def test_a_value_that_is_too_large_is_refused():
    subject = Subject(gate("g").key, gate("g", value="x" * 20_000), BECAUSE)
    made, refused = make(KINDS, [subject], {})
    assert not made
    assert "at most 16384" in refused[0].why


def test_only_what_does_not_restrict_goes_in_bulk():
    cause = Cause("tenant", "acme")
    resources = [gate(f"g{number}", shut=number == 0) for number in range(3)]
    subjects = [Subject(each.key, each, cause) for each in resources]
    made, _ = make(KINDS, subjects, {})
    drafts = plan(subjects, made, [], DECLARED).drafts
    assert large_causes(drafts, 3) == set()
    lanes = {draft.row.subject: draft.row.lane for draft in in_lanes(drafts, large_causes(drafts, 2))}
    assert lanes == {"Gate/acme/g0": FAST, "Gate/acme/g1": BULK, "Gate/acme/g2": BULK}


@given(st.frozensets(st.sampled_from(sorted(DECLARED))))
def test_sets_of_regions_are_read_as_they_were_written(names):
    assert region_names(regions_text(names), DECLARED) == names
    assert region_names(regions_text(EVERYWHERE), DECLARED) == DECLARED


def test_the_tenant_is_the_subject_s_own():
    tenants = {"acme": tenant(title="Acme"), "other": tenant("other", title="Other")}
    resource = gate("g", "other")
    made, _ = make(KINDS, [Subject(resource.key, resource, BECAUSE)], tenants)
    assert msgspec.json.decode(made[0].value)["title"] == "Other"
