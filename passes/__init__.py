"""The concrete rewrites, one file each, registered by decorator."""
