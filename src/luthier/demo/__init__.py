"""The embedded default: the whole path, from a data file to a conversation, without network or GPU."""
