"""Stationary points: what the source says, what of it holds, and what the claims below share.

**The source says**: "MAML has more stationary points and local minimizers than ERM".
"""
