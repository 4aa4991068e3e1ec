"""Replica choice under a virtual clock: clients with the rules of `gslb.rpc.policy`, servers that share machines."""
