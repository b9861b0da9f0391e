"""A small operator: it paints gadgets, and tells where it has painted them. `kopf run painter.py`."""

import kopf

KIND = ("clients.example", "v1", "gadgets")


@kopf.on.startup()
def configure(settings, **_):
    settings.persistence.finalizer = "clients.example/painter"
    settings.posting.level = 100  # no Event for each line of the log


@kopf.on.create(*KIND, labels={"paint": "yes"})
@kopf.on.update(*KIND, labels={"paint": "yes"})
def paint(spec, patch, **_):
    patch.status["painted"] = spec["colour"]


@kopf.on.delete(*KIND, labels={"paint": "yes"})
def clean(name, logger, **_):
    logger.info("cleaned %s", name)
