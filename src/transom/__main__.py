"""`python -m transom`: the command line, for where the `transom` command is not on the path."""

from transom.cli.main import main

main()
