"""Which tensor indices can only be removed together.

`couple` (couple) walks a Trace with the operator rules; `Couplings` (components) is the
result, which planning and masks read without torch: this file imports nothing.
"""
