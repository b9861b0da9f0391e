"""What a topic is called in another region, and why mirrors cannot run in circles.

A mirrored topic is `<topic>.<environment>-<region>`. A topic that has such an ending is somebody's copy, and
copies are never mirrored: so no chain of links, however configured, can come back to where it began.
"""

from transom.model.errors import InvalidError, Problem
from transom.model.names import is_label


def mirrored_name(topic: str, environment: str, region: str) -> str:
    """The name that `topic` of a region has elsewhere. Raises `InvalidError` when it is a copy already."""
    if is_copy(topic):
        raise InvalidError(
            f"mirror of topic {topic!r}",
            [Problem("", "it is a copy from another region; mirror the original from its own region")],
        )
    problems = [
        Problem(name, f"{value!r} is not a DNS label")
        for name, value in (("environment", environment), ("region", region))
        if not is_label(value)
    ]
    if problems:
        raise InvalidError(f"mirror of topic {topic!r}", problems)
    return suffixed(topic, environment, region)


def suffixed(topic: str, environment: str, region: str) -> str:
    """How a name says whose copy a topic is, for names that are known to be right."""
    return f"{topic}.{environment}-{region}"


def is_copy(topic: str) -> bool:
    """Whether the name says that the topic is a copy of another region's."""
    _, dot, ending = topic.rpartition(".")
    return bool(dot) and "-" in ending and is_label(ending)
