"""The DNS frontend beside other servers: queries per second of server CPU, the same names, the same queries, one run."""
