"""Settings of the Python kernels: output for programs to read, and a start without anything to wait for."""

c = get_config()  # noqa: F821 - provided by traitlets

# Clients show tracebacks in all kinds of places; escape sequences would be noise in most.
c.InteractiveShell.colors = "nocolor"

# Long lists, tuples, sets and dicts are shown in full.
c.PlainTextFormatter.max_seq_length = 0

# A database shared by all kernels locks, grows and outlives the sandbox's owner; In, Out and %history of the
# running kernel live in memory without it.
c.HistoryManager.enabled = False

# Nobody asks for completions; jedi would start on the first one.
c.IPCompleter.use_jedi = False
