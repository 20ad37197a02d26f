"""The built-in commands, one module each; a module's `command` is the click command."""
