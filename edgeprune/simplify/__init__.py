"""Lossless removal: channels that are dead, constant, unused or doubled go without changing an output.

lossless(trace, couplings, mask, inputs)   rounds of removal, each certified on real inputs
apply_mask(trace, couplings, mask)         the same graph with masked weights set to zero

Guarantee: the result computes what the masked network computes, to rounding.
Elsewhere: removal that changes outputs (surgery.cut), which channels to remove (search).
"""
