"""Its folder is on the import path of every test, so that `hub_parts` and others beside it can be shared."""

pytest_plugins = ["engines_fixtures", "scenario_engines", "store_places"]
