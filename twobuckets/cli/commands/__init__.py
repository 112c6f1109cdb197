"""The commands, a module each, named as they are typed: they ask, call a room and show."""
