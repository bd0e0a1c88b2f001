"""What tests share. docs/testing.md says which part to use for what."""
