"""All communication with container engines and registries."""
