"""The command line: `main` finds the verb, each verb is in a module of its own, loaded when it is used.

Verbs about resources stand on `client` alone; `up`, `hub` and `region` start what is in `processes`.
"""
