"""Where sets of tasks come from: folders, git repositories, registries and the hub; fetched into a cache."""
