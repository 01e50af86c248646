//! The command line of `kmctl`: one file per subcommand, settings, prompts, exit codes.
