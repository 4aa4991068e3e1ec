"""A planet under a virtual clock: the production balancer, steering and RPC policy, driven by stories."""
