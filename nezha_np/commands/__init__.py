"""The subcommands of ``nezha-np``, one a file."""
