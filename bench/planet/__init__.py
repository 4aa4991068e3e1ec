"""The benchmark `planet`: how quickly changes reach whoever must know, and what the control plane costs."""
