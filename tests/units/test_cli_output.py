from transom.cli.output import aligned, harmless


def test_what_a_terminal_would_act_on_is_written_out():
    assert harmless("\x1b]0;pwn\x07 line\nnext \u202e é ✓") == "\\x1b]0;pwn\\x07 line\\x0anext \\x202e é ✓"
    (line,) = aligned([["a\x1b[2J", "b"]])
    assert line == "a\\x1b[2J   b"
