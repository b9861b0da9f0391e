"""What every test of a running `transom up` needs: a folder whose processes end with it, and free ports."""

from up_parts import folder, port

__all__ = ["folder", "port"]
