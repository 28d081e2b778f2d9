"""One file per subcommand of ``preflow``.

Arguments, messages and exit codes belong here; what a command does belongs to the packages below.
"""
