"""The library alone: a server and a client of thirty lines each, without generated code (docs/tutorial/balanced-service.md)."""
