"""Op declarations: one file per family, and in it everything the compiler knows about each op."""
