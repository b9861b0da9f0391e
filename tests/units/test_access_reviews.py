"""Who am I, may I, may they: reviews as kubectl asks them."""

import pytest

from access_parts import made_key
from api_parts import served
from transom.hub.access.callers import ADMINISTRATOR, AUTHENTICATED, OPERATORS

REVIEWS = "/apis/authorization.k8s.io/v1"


@pytest.fixture
async def api(tmp_path):
    async with served(tmp_path) as api:
        yield api


def body(kind, spec=None, group="authorization.k8s.io"):
    made = {"kind": kind, "apiVersion": f"{group}/v1", "metadata": {"creationTimestamp": None}}
    return {**made, "spec": spec} if spec is not None else made


def wish(verb, resource="deployments", namespace="acme", **more):
    return {"verb": verb, "group": "transom.dev", "resource": resource, "namespace": namespace, **more}


async def may_i(api, key, **spec):
    asked = body("SelfSubjectAccessReview", spec)
    told = await api.ask("POST", f"{REVIEWS}/selfsubjectaccessreviews", asked, key=key)
    assert told.code == 201, told.body
    assert told.body["spec"] == spec
    return told.body["status"]["allowed"]


async def test_who_am_i(api):
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    asked = body("SelfSubjectReview", group="authentication.k8s.io")
    told = await api.ask("POST", path, asked)
    assert told.body["status"]["userInfo"] == {
        "username": ADMINISTRATOR,
        "groups": [OPERATORS, AUTHENTICATED],
    }
    key = await made_key(api.store, "ci")
    told = await api.ask("POST", path, asked, key=key)
    assert told.body["status"]["userInfo"] == {"username": "key:ci", "groups": [AUTHENTICATED]}


async def test_may_i(api):
    key = await made_key(api.store, "ci", acme="viewer")
    assert await may_i(api, key, resourceAttributes=wish("get"))
    assert not await may_i(api, key, resourceAttributes=wish("create"))
    assert not await may_i(api, key, resourceAttributes=wish("get", namespace="other"))
    assert not await may_i(api, key, resourceAttributes=wish("*", "*"))
    assert await may_i(api, key, nonResourceAttributes={"verb": "get", "path": "/version"})
    assert not await may_i(api, key, nonResourceAttributes={"verb": "get", "path": "/metrics"})


async def test_what_may_i(api):
    key = await made_key(api.store, "ci", acme="viewer")
    asked = body("SelfSubjectRulesReview", {"namespace": "acme"})
    told = await api.ask("POST", f"{REVIEWS}/selfsubjectrulesreviews", asked, key=key)
    rules = told.body["status"]["resourceRules"]
    (mine,) = [rule for rule in rules if "deployments" in rule["resources"]]
    assert mine["verbs"] == ["get", "list", "watch"]
    assert not [rule for rule in rules if "apikeys" in rule["resources"]]
    assert told.body["status"]["incomplete"] is False
    elsewhere = body("SelfSubjectRulesReview", {"namespace": "other"})
    told = await api.ask("POST", f"{REVIEWS}/selfsubjectrulesreviews", elsewhere, key=key)
    assert not [rule for rule in told.body["status"]["resourceRules"] if "deployments" in rule["resources"]]


async def test_operators_ask_about_anybody_and_owners_in_their_tenant(api):
    owner = await made_key(api.store, "boss", acme="owner")
    viewer = await made_key(api.store, "ci", acme="viewer")
    everywhere = f"{REVIEWS}/subjectaccessreviews"
    here = f"{REVIEWS}/namespaces/acme/localsubjectaccessreviews"
    spec = {"user": "key:ci", "resourceAttributes": wish("get")}
    local = body("LocalSubjectAccessReview", spec)
    told = await api.ask("POST", everywhere, body("SubjectAccessReview", spec))
    assert told.body["status"] == {"allowed": True}
    assert (await api.ask("POST", everywhere, body("SubjectAccessReview", spec), key=owner)).code == 403
    assert (await api.ask("POST", here, local, key=owner)).body["status"] == {"allowed": True}
    assert (await api.ask("POST", here, local, key=viewer)).code == 403
    assert (await api.ask("POST", here.replace("acme", "other"), local, key=owner)).code == 404
    spec["resourceAttributes"]["namespace"] = "other"
    assert (await api.ask("POST", here, local, key=owner)).code == 422


@pytest.mark.parametrize(
    "spec",
    [{}, {"resourceAttributes": 1}, {"resourceAttributes": {"verbs": "get"}}, {"unknown": 1}, 5, None,
     {"resourceAttributes": {}, "nonResourceAttributes": {}}],
)  # fmt: skip
async def test_what_cannot_be_understood_is_refused(api, spec):
    asked = {**body("SelfSubjectAccessReview"), "spec": spec}
    told = await api.ask("POST", f"{REVIEWS}/selfsubjectaccessreviews", asked)
    assert (told.code, told.body["reason"]) == (422, "Invalid")


async def test_reviews_are_created_and_nothing_else(api):
    told = await api.ask("GET", f"{REVIEWS}/selfsubjectaccessreviews")
    assert (told.code, told.body["reason"]) == (405, "MethodNotAllowed")
