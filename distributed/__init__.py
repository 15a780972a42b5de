"""Many processes as one: meshes, layouts, the partitioner, collectives and the launcher."""
