"""ContextFreeze and ContextOverride: people's hand on the publishing of contexts.

They are resources so that who did it, when and why is in the history like everything else.
"""
