"""The benchmark `rpc`: the rules of the RPC library, in the simulator and on real processes."""
