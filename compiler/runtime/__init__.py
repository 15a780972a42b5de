"""The runtime: arena, plan and object cache that compiled functions run on."""
