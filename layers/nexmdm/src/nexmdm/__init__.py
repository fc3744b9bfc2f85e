"""The layer that every NexMDM function shares."""
