"""Many cells: run, killed, resumed; on processes, devices or a cluster; every line written the moment it is known."""
